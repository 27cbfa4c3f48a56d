"""The whole command, with workers in processes of their own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accuracy.commands import main
from accuracy.jobs import SegmentJob
from accuracy.ledger import Ledger

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from accuracy.ledger import Ledger
ledger = Ledger(Path(sys.argv[2]))
with ledger.claim(lambda _: True) as job:
    ledger.begin(job)
    print(job.name, flush=True)
    time.sleep(600)
"""


def test_a_campaign_is_done_once_and_reported(data: Path, tmp_path: Path) -> None:
    settings = ["--pretrain", '{"crop": 64, "batch": 2}']
    settings += ["--finetune", '{"crop": 64, "batch": 2, "steps": 2}']
    command = ["pretrained", "--data", str(data), "--runs", str(tmp_path), "--budgets", "one"]
    command += ["--preset", "nano", "--minutes", "0.005", "--gpus", "cpu", "--workers", "2"]
    assert main([*command, *settings]) == 0
    results = (tmp_path / "results.jsonl").read_text()
    assert set(Ledger(tmp_path).results()) == {
        "affmae-nano-0.005-min",
        "cells-one-affmae-nano-random-0",
        "cells-one-affmae-nano-pretrained-0.005-min-0",
    }
    report = (tmp_path / "report" / "accuracy.md").read_text(encoding="utf-8")
    assert "| affmae-nano pretrained 0.005 min | 0." in report
    assert main([*command, *settings]) == 0
    assert (tmp_path / "results.jsonl").read_text() == results
    main(["report", "--runs", str(tmp_path), "--out", str(tmp_path / "other")])
    assert (tmp_path / "other" / "labels.png").exists()


def test_a_campaign_says_that_it_is_not_done(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = SegmentJob(name="s", network="dynunet", method="m", dataset="missing", budget="one")
    Ledger(tmp_path).add([job])
    command = ["run", "--data", str(data), "--runs", str(tmp_path), "--gpus", "cpu"]
    assert main([*command, "--workers", "1"]) == 1
    out = capfd.readouterr().out
    assert "FAILED s" in out
    assert "1 jobs are left, of which 1 failed: s" in out


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    job = SegmentJob(name="s", network="dynunet", method="m", dataset="d", budget="one")
    Ledger(tmp_path).add([job])
    command = [sys.executable, "-c", HOLD, str(BENCHMARKS), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_the_job_of_a_dead_worker_is_taken_again(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    assert holder.stdout.readline() == "s\n"
    ledger = Ledger(tmp_path)
    with ledger.claim(lambda _: True) as job:
        assert job is None
    holder.kill()
    holder.wait()
    with ledger.claim(lambda _: True) as job:
        assert job.name == "s"
        assert ledger.begin(job)
