"""Jobs in a folder: what is ready, held, done, failed."""

import threading
from pathlib import Path

import pytest
from accuracy.jobs import PretrainJob, SegmentJob, model_of
from accuracy.ledger import MOST_TRIES, Ledger
from filelock import FileLock

PRETRAIN = PretrainJob(name="p", network="affmae-nano", sets=("cells",))


def segment(name: str, **fields: object) -> SegmentJob:
    fixed = {"network": "affmae-nano", "method": "m", "dataset": "cells", "budget": "one"}
    return SegmentJob(name=name, **{**fixed, **fields})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    ledger.add([PRETRAIN, segment("s", start="p"), segment("t")])
    return ledger


def ready(ledger: Ledger) -> list[str]:
    return [job.name for job in ledger.look().ready]


def end_pretraining(ledger: Ledger) -> Path:
    ledger.finish(PRETRAIN, {"steps": 1})
    model = model_of(ledger.runs, "p")
    model.parent.mkdir()
    model.touch()
    return model


def test_jobs_wait_for_what_they_need(ledger: Ledger) -> None:
    assert ready(ledger) == ["p", "t"]
    end_pretraining(ledger)
    assert ready(ledger) == ["s", "t"]


def test_what_is_done_is_not_ready_again(ledger: Ledger) -> None:
    ledger.finish(segment("t"), {"mean_iou": 0.5})
    assert ready(ledger) == ["p"]
    assert Ledger(ledger.folder).results()["t"] == {"name": "t", "mean_iou": 0.5}


def test_what_an_earlier_campaign_has_measured_is_not_done_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    earlier = Ledger(tmp_path / "earlier")
    for score in (0.4, 0.5):
        earlier.finish(segment("t"), {"mean_iou": score})
    ledger.know(earlier.folder / "results.jsonl")
    assert ready(ledger) == ["p"]
    before = (ledger.folder / "results.jsonl").read_bytes()
    ledger.know(earlier.folder / "results.jsonl")
    assert (ledger.folder / "results.jsonl").read_bytes() == before


def test_adding_again_changes_nothing_and_another_job_is_refused(ledger: Ledger) -> None:
    before = ledger.jobs()
    ledger.add([segment("t"), segment("u")])
    assert list(ledger.jobs()) == [*before, "u"]
    with pytest.raises(ValueError, match="another job named t"):
        ledger.add([segment("t", seed=1)])


def test_a_job_is_claimed_once(ledger: Ledger) -> None:
    other = Ledger(ledger.folder)
    with ledger.claim(lambda _: True) as first, other.claim(lambda _: True) as second:
        assert (first.name, second.name) == ("p", "t")
        assert other.is_held(PRETRAIN)
        with ledger.claim(lambda _: True) as third:
            assert third is None
    assert not other.is_held(PRETRAIN)


def test_who_is_patient_waits_for_those_who_only_look(ledger: Ledger) -> None:
    lock = FileLock(ledger.folder / "locks" / "p.lock", thread_local=False)
    lock.acquire()
    timer = threading.Timer(0.1, lock.release)
    timer.start()
    with ledger.claim(lambda _: True, patience=30) as job:
        assert job.name == "p"
    timer.join()


def test_a_lost_model_is_made_again_while_it_is_needed(ledger: Ledger) -> None:
    model = end_pretraining(ledger)
    model.unlink()
    assert ready(ledger) == ["p", "t"]
    ledger.finish(segment("s", start="p"), {})
    assert ready(ledger) == ["t"]


def test_what_needs_a_failed_job_is_not_waited_for(ledger: Ledger) -> None:
    ledger.fail(PRETRAIN, "because")
    assert ledger.failed() == {"p": "because\n"}
    assert [job.name for job in ledger.look().open] == ["t"]
    ledger.forgive()
    assert ready(ledger) == ["p", "t"]


def test_a_job_that_ends_processes_fails(ledger: Ledger) -> None:
    for _ in range(MOST_TRIES):
        assert ledger.begin(PRETRAIN)
    assert not ledger.begin(PRETRAIN)
    assert "died 3 times" in ledger.failed()["p"]


def test_stops_on_purpose_are_no_tries(ledger: Ledger) -> None:
    for _ in range(2 * MOST_TRIES):
        assert ledger.begin(PRETRAIN)
        ledger.interrupt(PRETRAIN)


def test_a_line_that_was_cut_short_costs_no_other(ledger: Ledger) -> None:
    path = ledger.folder / "results.jsonl"
    path.write_text('{"name": "p", "ste')
    assert ledger.results() == {}
    ledger.finish(segment("t"), {"mean_iou": 0.5})
    assert list(ledger.results()) == ["t"]
