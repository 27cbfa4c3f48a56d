"""Tables and curves of made-up results."""

from pathlib import Path
from typing import Any

from accuracy.curves import draw_curves
from accuracy.report import spread, write_report

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


def test_curves_are_drawn(tmp_path: Path) -> None:
    paths = draw_curves(RESULTS, tmp_path)
    assert [path.name for path in paths] == ["labels.png", "minutes.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
