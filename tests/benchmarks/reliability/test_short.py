"""A short form of ``python benchmarks/reliability``, and what counts as a fault there."""

import shutil
import sys
from pathlib import Path

import pytest
from reliability import kills
from reliability.children import Ending
from reliability.readers import fuzz, judge, table

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and limits as in Linux")


@linux
def test_damaged_images_give_values_or_documented_errors() -> None:
    trials = fuzz(36, seed=10_000)
    assert {trial.outcome for trial in trials} == {"value", "error"}
    assert "| all | 36 |" in table(trials)


@pytest.mark.parametrize(
    ("ending", "outcome", "words"),
    [
        (Ending([("value", "", 5)], 0, 1.0), "value", ""),
        (Ending([("error", "DataError: no", 5)], 0, 1.0), "error", "no"),
        (Ending([("fault", "KeyError", 5)], 0, 1.0), "fault", "KeyError"),
        (Ending([], -11, 1.0), "fault", "ended with -11"),
        (Ending([("value", "", 5)], -6, 1.0), "fault", "ended with -6"),
        (Ending([], None, 20.0), "fault", "too long"),
    ],
)
def test_crashes_hangs_and_other_errors_are_faults(
    ending: Ending, outcome: str, words: str
) -> None:
    trial = judge("a.tif", 0, ending)
    assert trial.outcome == outcome
    assert words in trial.words


@linux
def test_killed_runs_lose_nothing(tmp_path: Path) -> None:
    tallies = kills.hunt(tmp_path, 3)
    assert [tally.kills for tally in tallies] == [1, 1, 1]
    assert [tally.faults for tally in tallies] == [[], [], []]


@linux
def test_what_is_lost_or_differs_is_found(tmp_path: Path) -> None:
    whole = kills.finished_run(tmp_path)
    run = Path(shutil.copytree(whole, tmp_path / "copy"))
    assert list(kills.differences(whole, run)) == []
    tally = kills.Tally("fine-tuning")
    told = [("saved", kills.STEPS + 1)]
    assert "was told" in next(iter(kills.lost(run, told, tally)))
    (run / "metrics.jsonl").write_text("")
    (run / ".affmae-left").touch()
    model = run / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-4] + b"\0\0\1\0")
    found = " ".join(kills.differences(whole, run))
    for words in ("measurements differ", "are left", "model.safetensors differs"):
        assert words in found
