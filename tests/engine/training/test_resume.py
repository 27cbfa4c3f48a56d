"""Stopping, killing and resuming lose nothing."""

import json
import random
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from napari_affmae.data import open_source
from napari_affmae.engine import pretrain, read_metadata, read_metrics, read_record
from napari_affmae.engine.events import (
    CheckpointSaved,
    PreviewReady,
    RunFinished,
    RunStarted,
    StepDone,
    Validated,
)
from napari_affmae.engine.store.checkpoints import list_checkpoints
from napari_affmae.engine.store.model_files import load_model
from napari_affmae.engine.store.records import DATA
from napari_affmae.errors import AffmaeError, CheckpointError, UnreadableFileError


def last_checkpoint(run):
    folder = run / "checkpoints"
    return folder / f"step_{list_checkpoints(folder)[-1]:08d}"


def assert_same_state(run, other):
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(last_checkpoint(path) / name) for path in (run, other))
        assert ours.keys() == theirs.keys()
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


def measured(run):
    """What a run measured, but for its pool: that tells of seconds."""
    return [line for line in read_metrics(run) if line["event"] != "pool"]


def assert_same_metrics(run, other):
    assert measured(run) == measured(other)


def stop_after(events, step):
    for event in events:
        if isinstance(event, StepDone) and event.step == step:
            events.close()


@pytest.fixture(scope="module")
def config(pretrain_config):
    """The settings of ``scripts/train.py``, but for the time between checkpoints."""
    return pretrain_config.model_copy(
        update={
            "steps": 20,
            "validation_steps": 5,
        }
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, image, config):
    run = tmp_path_factory.mktemp("whole") / "run"
    list(pretrain([image], config, run))
    return run


def test_ten_and_ten_steps_equal_twenty(tmp_path, image, config, whole_run):
    stop_after(pretrain([image], config, tmp_path), 10)
    assert list_checkpoints(tmp_path / "checkpoints")[-1] == 10
    events = list(pretrain([image], config, tmp_path, resume=True))
    assert next(e for e in events if isinstance(e, RunStarted)).step == 10
    assert isinstance(events[-1], RunFinished)
    assert_same_state(tmp_path, whole_run)
    assert_same_metrics(tmp_path, whole_run)


def test_ten_and_ten_steps_in_other_processes_equal_twenty(tmp_path, whole_run, start_script):
    for stop, resume in ((10, False), (None, True)):
        process = start_script(
            "train.py",
            RUN=str(tmp_path),
            STEPS=20,
            RESUME=resume,
            STOP_AFTER=stop,
            KILL_AT_SYNC=None,
        )
        process.join()
        assert process.exitcode == 0
    assert_same_state(tmp_path, whole_run)
    assert_same_metrics(tmp_path, whole_run)


def test_what_is_measured_after_the_last_step_comes_into_the_model(
    tmp_path, image, pretrain_config, pretrained
):
    stop_after(pretrain([image], pretrain_config, tmp_path), 4)
    list(pretrain([image], None, tmp_path, resume=True))
    losses = [read_metadata(run).training["validation_loss"] for run in (tmp_path, pretrained[0])]
    assert losses[0] == losses[1]


def test_the_callers_random_numbers_neither_matter_nor_change(tmp_path, image, pretrain_config):
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(3)
        torch.manual_seed(seed)
        events = pretrain([image], pretrain_config, tmp_path / str(seed))
        losses.append(next(event.loss for event in events if isinstance(event, StepDone)))
        events.close()
        assert torch.equal(torch.rand(3), expected)
    assert losses[0] == losses[1]


def test_an_interrupt_in_the_consumer_leaves_a_checkpoint(tmp_path, image, pretrain_config):
    def consume():
        for event in pretrain([image], pretrain_config, tmp_path):
            if isinstance(event, StepDone) and event.step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert list_checkpoints(tmp_path / "checkpoints")[-1] == 3


def test_an_interrupt_within_a_step_leaves_the_step_before(tmp_path, image, pretrain_config):
    """Ctrl-C mostly comes while the engine computes."""
    events = pretrain([image], pretrain_config, tmp_path)
    next(event for event in events if isinstance(event, StepDone) and event.step == 2)
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    assert list_checkpoints(tmp_path / "checkpoints")[-1] == 2


@pytest.mark.parametrize("sync", [1, 4, 5, 6, 7, 9, 14])
def test_a_kill_at_any_sync_leaves_a_run_that_resumes(tmp_path, sync, start_script):
    process = start_script(
        "train.py", RUN=str(tmp_path), STEPS=3, RESUME=False, STOP_AFTER=None, KILL_AT_SYNC=sync
    )
    process.join()
    assert process.exitcode == -signal.SIGKILL
    resume = (tmp_path / "run.json").exists()
    process = start_script(
        "train.py", RUN=str(tmp_path), STEPS=3, RESUME=resume, STOP_AFTER=None, KILL_AT_SYNC=None
    )
    process.join()
    assert process.exitcode == 0
    assert [m["step"] for m in read_metrics(tmp_path) if m["event"] == "step"] == [1, 2, 3]
    assert not list(tmp_path.rglob(".*.new")) + list(tmp_path.rglob(".*.old"))
    load_model(tmp_path)


def test_kills_at_random_moments_lose_nothing(tmp_path, whole_run, start_script):
    moments = random.Random(0)
    for number in range(3):
        process = start_script(
            "train.py",
            RUN=str(tmp_path),
            STEPS=20,
            RESUME=(tmp_path / "run.json").exists(),
            STOP_AFTER=None,
            KILL_AT_SYNC=None,
        )
        metrics, before = tmp_path / "metrics.jsonl", number * 3
        while process.is_alive() and not (
            metrics.exists() and metrics.read_text().count('"step"') > before
        ):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        process.join()
        if list_checkpoints(tmp_path / "checkpoints"):
            load_model(tmp_path)
    process = start_script(
        "train.py", RUN=str(tmp_path), STEPS=20, RESUME=True, STOP_AFTER=None, KILL_AT_SYNC=None
    )
    process.join()
    assert process.exitcode == 0
    assert_same_state(tmp_path, whole_run)
    assert_same_metrics(tmp_path, whole_run)


class BreakingArray:
    """An array whose file goes away."""

    def __init__(self, array):
        self._array, self.whole = array, True
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index):
        if not self.whole:
            raise UnreadableFileError("the disk was unplugged")
        return self._array[index]


def test_a_file_that_breaks_leaves_a_checkpoint(tmp_path, volume, pretrain_config):
    array = BreakingArray(volume[0])
    config = pretrain_config.model_copy(update={"steps": 50})
    source = open_source(array, axes="ZYX", name="volume")
    seen = []

    def consume():
        for event in pretrain([source], config, tmp_path):
            if isinstance(event, StepDone):
                seen.append(event.step)
                array.whole = event.step < 3

    with pytest.raises(UnreadableFileError, match="unplugged"):
        consume()
    done = seen[-1]
    assert list_checkpoints(tmp_path / "checkpoints")[-1] == done
    array.whole = True
    events = pretrain([source], config, tmp_path, resume=True)
    assert next(e for e in events if isinstance(e, RunStarted)).step == done
    events.close()


def test_a_run_can_be_made_longer(tmp_path, image, pretrain_config):
    list(pretrain([image], pretrain_config, tmp_path))
    longer = pretrain_config.model_copy(update={"steps": 6})
    events = list(pretrain([image], longer, tmp_path, resume=True))
    assert [e.step for e in events if isinstance(e, StepDone)] == [5, 6]
    assert json.loads((tmp_path / "run.json").read_text())["config"]["steps"] == 6


def test_a_finished_run_has_nothing_left_to_do(tmp_path, image, pretrain_config):
    list(pretrain([image], pretrain_config, tmp_path))
    events = list(pretrain([image], None, tmp_path, resume=True))
    assert [type(event) for event in events] == [RunStarted, RunFinished]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 4}, "batch"),
        ({"learning_rate": 1.0}, "learning_rate"),
        ({"steps": 2}, "not shorter"),
        ({"steps": None, "minutes": 1.0}, "steps"),
    ],
)
def test_other_settings_cannot_be_resumed_with(pretrained, image, pretrain_config, change, words):
    config = pretrain_config.model_copy(update=change)
    with pytest.raises(ValueError, match=words):
        next(pretrain([image], config, pretrained[0], resume=True))


def test_a_run_is_not_overwritten(pretrained, image, pretrain_config):
    with pytest.raises(AffmaeError, match=r"already holds a run.*resume"):
        next(pretrain([image], pretrain_config, pretrained[0]))


def test_there_must_be_a_run_to_resume(tmp_path, image, pretrain_config):
    with pytest.raises(CheckpointError, match="holds no run"):
        next(pretrain([image], pretrain_config, tmp_path / "nothing", resume=True))


def test_a_run_folder_is_for_one_process(tmp_path, image, pretrain_config):
    events = pretrain([image], pretrain_config, tmp_path)
    next(events)
    with pytest.raises(AffmaeError, match="another"):
        next(pretrain([image], pretrain_config, tmp_path, resume=True))
    events.close()


def test_changed_data_are_told(tmp_path, image, volume, pretrain_config):
    stop_after(pretrain([image], pretrain_config, tmp_path), 1)
    other = open_source(255 - volume[0], axes="ZYX", name="volume")
    events = list(pretrain([other], pretrain_config, tmp_path, resume=True))
    assert any("not those" in getattr(event, "message", "") for event in events)
    list(pretrain([image], None, tmp_path, resume=True))
    record = read_record(tmp_path)
    first, second = record["resumed"]
    assert DATA.read(tmp_path, record["data"])[0]["fingerprint"] == image.fingerprint()
    assert DATA.read(tmp_path, first["data"])[0]["fingerprint"] == other.fingerprint()
    assert "data" not in second
    assert first["versions"] == record["versions"]


def test_checkpoints_kept_are_the_last_two(tmp_path, image, pretrain_config):
    config = pretrain_config.model_copy(update={"checkpoint_minutes": 1e-9})
    events = list(pretrain([image], config, tmp_path))
    assert [e.step for e in events if isinstance(e, CheckpointSaved)] == [1, 2, 3, 4]
    assert list_checkpoints(tmp_path / "checkpoints") == [3, 4]


def test_a_resumed_run_shows_and_measures_itself_too(tmp_path, image, pretrain_config):
    """Also where validations are spaced by time: at the next chance, and at the end."""
    config = pretrain_config.model_copy(update={"steps": 6, "validation_steps": "auto"})
    stop_after(pretrain([image], config, tmp_path), 2)
    events = list(pretrain([image], None, tmp_path, resume=True))
    previews = [event.step for event in events if isinstance(event, PreviewReady)]
    assert previews[0] == 2
    assert [event.step for event in events if isinstance(event, Validated)] == [6]
