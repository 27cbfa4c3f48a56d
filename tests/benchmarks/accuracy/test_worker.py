"""Whose turn it is: pretraining has a GPU for itself."""

from pathlib import Path

import pytest
from accuracy import worker
from accuracy.execution import Site
from accuracy.jobs import PretrainJob, SegmentJob
from accuracy.ledger import AnyJob, Ledger

SITE = Site(Path(), Path(), (), "cpu", workers=2, deadline=float("inf"))


def turn(ledger: Ledger, gpu: str, slot: int) -> str | None:
    with worker._turn(ledger, gpu, slot) as job:
        return None if job is None else job.name


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    segment = {"network": "affmae-nano", "method": "m", "dataset": "d", "budget": "one"}
    ledger = Ledger(tmp_path)
    ledger.add(
        [
            SegmentJob(name="s", **segment),
            SegmentJob(name="t", **segment),
            PretrainJob(name="p", network="affmae-nano", sets=("d",)),
        ]
    )
    return ledger


def test_the_first_worker_pretrains_before_all_else(ledger: Ledger) -> None:
    assert turn(ledger, "0", 0) == "p"


def test_the_others_wait_until_a_gpu_has_the_pretraining(ledger: Ledger) -> None:
    assert turn(ledger, "0", 1) is None
    with worker._turn(ledger, "0", 0) as job:
        assert job is not None
        assert job.name == "p"
        assert turn(ledger, "0", 1) is None
        assert turn(ledger, "1", 0) == "s"
        assert turn(ledger, "1", 1) == "s"
    ledger.finish(job, {})
    assert turn(ledger, "0", 1) == "s"


def test_workers_side_by_side_take_different_jobs(ledger: Ledger) -> None:
    ledger.fail(ledger.jobs()["p"], "because")
    with worker._turn(ledger, "0", 0) as first:
        assert first is not None
        assert (first.name, turn(ledger, "0", 1)) == ("s", "t")


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
    assert set(ledger.results()) == {"p", "t"}
