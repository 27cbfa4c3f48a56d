"""Whose turn it is: pretraining by the clock has a GPU for itself."""

from pathlib import Path

import pytest
from accuracy import worker
from accuracy.execution import Site
from accuracy.jobs import PretrainJob, SegmentJob
from accuracy.ledger import AnyJob, Ledger

SITE = Site(Path(), Path(), (), "cpu", workers=2, deadline=float("inf"))


def turn(ledger: Ledger, gpu: str) -> str | None:
    with worker._turn(ledger, gpu) as job:
        return None if job is None else job.name


SEGMENT = {"network": "affmae-nano", "method": "m", "dataset": "d", "budget": "one"}


def pretraining(**settings: float) -> PretrainJob:
    return PretrainJob(name="p", network="affmae-nano", sets=("d",), settings=settings)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    ledger.add([SegmentJob(name=name, **SEGMENT) for name in "st"])
    return ledger


def test_jobs_are_taken_in_their_order(ledger: Ledger) -> None:
    ledger.add([pretraining(minutes=1)])
    with worker._turn(ledger, "0") as first:
        assert first is not None
        assert (first.name, turn(ledger, "0")) == ("s", "t")


@pytest.mark.parametrize("settings", [{"minutes": 1}, {"steps": 9}])
def test_only_pretraining_by_the_clock_has_a_gpu_for_itself(
    tmp_path: Path, settings: dict[str, float]
) -> None:
    ledger = Ledger(tmp_path)
    job = pretraining(**settings)
    ledger.add([job, SegmentJob(name="s", **SEGMENT)])
    beside = None if job.is_timed else "s"
    with worker._turn(ledger, "0") as first:
        assert first == job
        assert turn(ledger, "0") == beside
        assert turn(ledger, "1") == "s"
    ledger.finish(job, {})
    assert turn(ledger, "0") == "s"


def test_a_worker_makes_way_after_a_failure_and_ends_when_nothing_is_left(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out(job: AnyJob, *_: object) -> dict[str, float]:
        if job.name == "s":
            raise RuntimeError("the GPU is broken")
        return {"mean_iou": 0.5}

    monkeypatch.setattr(worker, "carry_out", carry_out)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    assert worker.work(ledger, SITE, "0", 0) == worker.FAILED
    assert "the GPU is broken" in ledger.failed()["s"]
    assert worker.work(ledger, SITE, "0", 0) == 0
    assert set(ledger.results()) == {"t"}
