"""Tables and curves of made-up results."""

from pathlib import Path
from typing import Any

import pytest
from accuracy.curves import draw_curves
from accuracy.ledger import read_results
from accuracy.page import BEGIN, END, scores_of, write_page
from accuracy.report import spread, total_gpu_seconds, write_report
from environment import RESULTS as RESULTS_FOLDER

MACHINE = {"device": "GPU", "torch": "2", "commit": "abc", "date": "2026-01-01"}


def segmented(method: str, dataset: str, seed: int, score: float, **job: Any) -> dict[str, Any]:
    fixed = {"kind": "segment", "network": "n", "budget": "one", "start": None, "variant": False}
    return {
        "name": f"{method} {dataset} {seed}",
        "planes": 1,
        "seconds": 80.0,
        "gpu_seconds": 20.0,
        "workers": 4,
        "steps": 1200,
        "parameters": 2_000_000,
        "crops_per_second": 300.0,
        "mean_iou": score,
        "iou": {"background": score, "cell": None},
        "machine": MACHINE,
        "job": {**fixed, "method": method, "dataset": dataset, "seed": seed, **job},
    }


PRETRAINED = {
    "name": "p",
    "parameters": 2_000_000,
    "steps": 100,
    "crops": 6400,
    "seconds": 120.0,
    "gpu_seconds": 120.0,
    "crops_per_second": 1000.0,
    "loss": 0.3,
    "effective_rank": {"a": [10.2, 3.0]},
    "machine": MACHINE,
    "job": {"kind": "pretrain"},
}
RESULTS = [
    PRETRAINED,
    *(segmented("ours", "a", seed, score, start="p") for seed, score in enumerate((0.6, 0.8))),
    *(segmented("ours", "b", seed, score, start="p") for seed, score in enumerate((0.2, 0.2))),
    segmented("theirs", "a", 0, 0.5, budget="all", planes=6),
]


def test_scores_are_spread_over_seeds() -> None:
    assert spread([0.5]) == "0.500"
    assert spread([0.6, 0.8]) == "0.700 ± 0.141 (2)"


def test_tables_hold_every_method(tmp_path: Path) -> None:
    write_report(RESULTS, tmp_path / "new" / "accuracy.md")
    text = (tmp_path / "new" / "accuracy.md").read_text(encoding="utf-8")
    assert "- GPU, torch 2, commit abc, 2026-01-01" in text
    assert "| ours |  | 0.700 ± 0.141 (2) |" in text
    assert "| theirs | 0.500 |  |" in text
    means = text.partition("## Mean over sets")[2]
    assert "| ours |  | 0.450 ± 0.071 (2) |" in means
    assert "| theirs |  |  |" in means, "it lacks a set"
    assert "background 0.700 ± 0.141 (2), cell none" in text
    assert "| ours | 2.0 | 1200 | 80 | 4 | 0.33 | 2.33 | 300 |  |" in text
    assert "a 10 / 3 |" in text


def test_a_page_gets_the_scores_between_its_marks(tmp_path: Path) -> None:
    page, picture = tmp_path / "evidence.md", tmp_path / "labels.png"
    (tmp_path / "images").mkdir()
    picture.write_bytes(b"picture")
    marked = f"![Scores](images/evidence-labels.png)\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    page.write_text(marked, encoding="utf-8")
    variant = segmented("other rate", "a", 0, 0.9, variant=True)
    for _ in range(2):
        write_page([*RESULTS, variant], [picture, tmp_path / "not shown.png"], page)
        text = page.read_text(encoding="utf-8")
        assert text.startswith("![Scores](images/evidence-labels.png)\n\n<!--")
        assert text.endswith("-->\n\nafter\n")
        assert text.count("| ours |  | 0.700 ± 0.141 (2) |") == 1
        assert "old" not in text
        assert "other rate" not in text
    assert (tmp_path / "images" / "evidence-labels.png").read_bytes() == b"picture"
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for the scores"):
        write_page(RESULTS, [picture], page)


def test_the_page_says_what_was_measured() -> None:
    page = (RESULTS_FOLDER.parents[1] / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert scores_of(read_results(RESULTS_FOLDER / "accuracy.jsonl")) in page


def test_weights_that_come_along_take_no_time_of_the_user() -> None:
    job = segmented("ours", "a", 0, 0.5, start="em-nano")
    assert total_gpu_seconds(job, {}) == 20
    assert total_gpu_seconds(segmented("ours", "a", 0, 0.5, start="/runs/mine"), {}) is None


def test_curves_are_drawn(tmp_path: Path) -> None:
    paths = draw_curves(RESULTS, tmp_path)
    assert [path.name for path in paths] == ["labels.png", "minutes.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
