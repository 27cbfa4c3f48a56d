"""Trainings in two processes, started by the command itself."""

import os
import signal
import subprocess
import sys
import time

import pytest

from napari_affmae.engine import read_metrics


def command(data, run, *words):
    return [
        *(sys.executable, "-m", "napari_affmae", "pretrain", data / "images", "--out", run),
        *("--device", "cpu", "--crop", "64", "--devices", "2", *words),
    ]


def steps(run):
    return [line["step"] for line in read_metrics(run) if line["event"] == "step"]


def test_two_devices_make_one_run_which_one_process_tells(data, tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    made = subprocess.run(
        command(data, run, "--batch", "4", "--steps", "3"),
        env=os.environ | {"TMPDIR": str(elsewhere)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stderr.count("device: 2 x CPU") == made.stderr.count("finished: ") == 1
    assert made.stdout == ""
    # Beside torch's cache, which one process has too.
    assert not [path for path in elsewhere.iterdir() if "torchinductor" not in path.name]
    assert steps(run) == [1, 2, 3]


def test_what_the_processes_refuse_is_told_once(data, tmp_path):
    run = tmp_path / "run"
    refused = subprocess.run(
        command(data, run, "--batch", "3", "--steps", "3"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr.count("napari-affmae: ") == 1
    assert "a batch of 3 crops cannot be split evenly over 2 devices" in refused.stderr
    assert not run.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_ctrl_c_stops_both_and_one_device_goes_on(data, tmp_path, cli):
    run = tmp_path / "run"
    with subprocess.Popen(
        command(data, run, "--batch", "4", "--steps", "30"),
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        while not (run / "metrics.jsonl").exists() and running.poll() is None:
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate()
    assert running.returncode == 130
    assert told.count("stopped; go on with: ") == 1
    assert told.rstrip().endswith("--devices 2 --batch 4 --steps 30 --resume")
    made = steps(run)
    assert made == list(range(1, len(made) + 1))
    assert len(made) < 30
    assert cli("pretrain", data / "images", "--out", run, "--resume").code == 0
    assert steps(run) == list(range(1, 31))
