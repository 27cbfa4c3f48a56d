import json
import os
import subprocess
import sys
import threading

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from napari_affmae.config import PretrainConfig
from napari_affmae.data import open_source
from napari_affmae.engine import load_model, pretrain, read_config, read_metrics, read_record
from napari_affmae.engine.events import (
    CheckpointSaved,
    MicroBatchHalved,
    Notice,
    PreviewReady,
    RunFinished,
    RunStarted,
    StepDone,
    Validated,
)
from napari_affmae.engine.store.checkpoints import list_checkpoints
from napari_affmae.engine.store.records import DATA
from napari_affmae.engine.training.steps.schedule import learning_rate
from napari_affmae.engine.training.steps.stepper import Stepper
from napari_affmae.errors import DataError, DivergedError
from napari_affmae.model import AFFMAE


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


def data_of(run):
    return DATA.read(run, read_record(run)["data"])


def test_events_of_a_run(pretrained, pretrain_config):
    run, events = pretrained
    started = of_type(events, RunStarted)[0]
    assert (started.device, started.precision) == ("CPU, 1 threads", "fp32")
    assert (started.batch, started.step, started.total_steps) == (2, 0, 4)
    steps = of_type(events, StepDone)
    assert [event.step for event in steps] == [1, 2, 3, 4]
    for event in steps:
        assert set(event.losses) == {"res2", "res4", "res5"}
        assert np.isfinite(event.loss)
        assert event.gradient_norm > 0
        assert event.images_per_second > 0
        assert event.total_steps == 4
        assert event.learning_rate == pytest.approx(learning_rate(event.step / 4, 5e-4, 1e-6, 0.05))
    assert [event.step for event in of_type(events, Validated)] == [0, 2, 4]
    assert events[-1] == RunFinished(4, run / "model.safetensors")


def test_the_folder_is_the_record(pretrained, pretrain_config, image):
    run, events = pretrained
    record = read_record(run)
    assert read_config(run) == pretrain_config
    assert record["kind"] == "pretrain"
    assert data_of(run)[0]["fingerprint"] == image.fingerprint()
    assert record["versions"]["torch"] == torch.__version__
    steps = [line for line in read_metrics(run) if line["event"] == "step"]
    assert [line["loss"] for line in steps] == [e.loss for e in of_type(events, StepDone)]
    validations = [line for line in read_metrics(run) if line["event"] == "validation"]
    assert [line["loss"] for line in validations] == [e.loss for e in of_type(events, Validated)]
    assert isinstance(load_model(run)[0], AFFMAE)


def test_previews_show_what_was_hidden(pretrained):
    preview = of_type(pretrained[1], PreviewReady)[0]
    images = preview.images
    assert list(images) == ["input", "masked", "reconstruction", "error"]
    assert {stack.shape for stack in images.values()} == {(4, 64, 64)}
    assert {stack.dtype for stack in images.values()} == {np.dtype(np.float32)}
    hidden = images["masked"] != images["input"]
    patches = hidden.reshape(4, 8, 8, 8, 8).any(axis=(2, 4))
    assert patches.mean() == pytest.approx(0.5)
    np.testing.assert_array_equal(images["error"][~hidden], 0)
    np.testing.assert_allclose(images["error"], np.abs(images["reconstruction"] - images["input"]))
    assert iio.imread(preview.path).shape == (4 * 68, 4 * 68)
    stored = np.load(preview.path.with_suffix(".npz"))
    np.testing.assert_array_equal(stored["error"], images["error"].astype(np.float16))


def test_validation_crops_and_masks_stay_the_same(tmp_path, image, pretrain_config):
    """With a vanishing learning rate, the loss is the same again and again."""
    config = pretrain_config.model_copy(
        update={"learning_rate": 1e-12, "min_learning_rate": 0.0, "validation_steps": 1}
    )
    events = list(pretrain([image], config, tmp_path))
    losses = [event.loss for event in of_type(events, Validated)]
    assert len(losses) == 5
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)
    previews = of_type(events, PreviewReady)
    assert previews


def test_a_single_plane_has_no_validation_and_says_so(
    tmp_path, volume, image, labels, pretrain_config
):
    one = open_source(volume[0][0], axes="YX", name="one")
    events = list(pretrain([one], pretrain_config, tmp_path, labelled=[(image, labels)]))
    assert any(
        "no validation loss, and no probe" in notice.message for notice in of_type(events, Notice)
    )
    assert not of_type(events, Validated)
    assert of_type(events, PreviewReady)


def test_learning(tmp_path, image):
    config = PretrainConfig(crop=64, batch=4, steps=40, learning_rate=2e-3, device="cpu")
    steps = of_type(list(pretrain([image], config, tmp_path)), StepDone)
    losses = [event.loss for event in steps]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_a_run_by_time(tmp_path, image, pretrain_config):
    config = pretrain_config.model_copy(update={"steps": None, "minutes": 0.04})
    events = list(pretrain([image], config, tmp_path))
    steps = of_type(events, StepDone)
    assert len(steps) > 2
    assert steps[-1].seconds_left < steps[0].seconds_left <= 2.4
    assert steps[-1].learning_rate < 0.3 * max(event.learning_rate for event in steps)
    assert isinstance(events[-1], RunFinished)
    assert not of_type(list(pretrain([image], None, tmp_path, resume=True)), StepDone)


def test_unreadable_sources_are_left_out_and_told(tmp_path, image, volume, pretrain_config):
    iio.imwrite(tmp_path / "cut.png", volume[0][0])
    whole = (tmp_path / "cut.png").read_bytes()
    broken = open_source(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    events = list(pretrain([broken, image], pretrain_config, tmp_path / "run"))
    notices = [notice.message for notice in of_type(events, Notice)]
    assert any("left out" in message and "cut" in message for message in notices)
    assert [item["name"] for item in data_of(tmp_path / "run")] == ["volume"]


def test_findings_become_notices(tmp_path, image, pretrain_config):
    flat = open_source(np.full((2, 64, 64), 7, np.uint8), axes="ZYX", name=image.name)
    events = list(pretrain([flat, image], pretrain_config, tmp_path))
    told = [(notice.source, notice.message) for notice in of_type(events, Notice)]
    assert any(name == flat.name and "left out: all of one" in text for name, text in told)
    # An image of the same name, from another folder, is not left out with it.
    assert [item["planes"] for item in data_of(tmp_path)] == [image.n_planes]


def test_nothing_to_train_on(tmp_path, pretrain_config):
    with pytest.raises(DataError, match="no image"):
        list(pretrain([], pretrain_config, tmp_path))


def test_channels_must_be_those_of_the_settings(tmp_path, volume, pretrain_config):
    colour = open_source(np.stack([volume[0]] * 3, 1), axes="ZCYX", name="colour")
    with pytest.raises(DataError, match=r"colour has 3 channels and the run takes 1 .1 of 2"):
        list(pretrain([open_source(volume[0], axes="ZYX"), colour], pretrain_config, tmp_path))
    config = pretrain_config.model_copy(update={"in_channels": 3, "steps": 1})
    assert isinstance(list(pretrain([colour], config, tmp_path / "colour"))[-1], RunFinished)


def test_divergence_keeps_the_checkpoints(tmp_path, image, pretrain_config):
    config = pretrain_config.model_copy(
        update={"learning_rate": 1e30, "warmup": 0.0, "checkpoint_minutes": 1e-9, "steps": 50}
    )
    events = []
    with pytest.raises(DivergedError, match="step"):
        events.extend(pretrain([image], config, tmp_path))
    module, _ = load_model(tmp_path)
    assert isinstance(module, AFFMAE)


def test_weights_that_are_not_finite_are_not_saved(tmp_path, image, pretrain_config, monkeypatch):
    """The loss of a step tells of the weights before it."""
    launch = Stepper.launch

    def spoil(self, plan, step, rate):
        launched = launch(self, plan, step, rate)
        if step == 2:
            self._parameters[0].data.fill_(torch.nan)
        return launched

    monkeypatch.setattr(Stepper, "launch", spoil)
    config = pretrain_config.model_copy(
        update={
            "checkpoint_minutes": 1e-9,
            "validation_steps": 9,
        }
    )
    with pytest.raises(DivergedError, match="step 2: weights are not finite"):
        list(pretrain([image], config, tmp_path))
    assert list_checkpoints(tmp_path / "checkpoints") == [1]


def test_micro_batches_shrink_and_the_run_goes_on(tmp_path, image, pretrain_config, monkeypatch):
    forward = AFFMAE.forward

    def hungry(self, images, *masks):
        if self.training and len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images, *masks)

    monkeypatch.setattr(AFFMAE, "forward", hungry)
    events = list(pretrain([image], pretrain_config, tmp_path))
    assert of_type(events, MicroBatchHalved) == [MicroBatchHalved(1, 1, 2)]
    assert [event.step for event in of_type(events, StepDone)] == [1, 2, 3, 4]


def test_it_runs_in_any_thread_and_closes_in_another(tmp_path, image, pretrain_config):
    events, collected = pretrain([image], pretrain_config, tmp_path), []

    def work():
        for event in events:
            collected.append(event)
            if isinstance(event, StepDone):
                return

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")
    events.close()
    assert of_type(collected, StepDone)
    resumed = list(pretrain([image], pretrain_config, tmp_path, resume=True))
    assert [event.step for event in of_type(resumed, StepDone)] == [2, 3, 4]


def test_nothing_is_printed_and_no_handler_is_left(pretrained):
    """In a fresh process, where no logging was set up before."""
    program = f"""
import signal, sys, warnings
import numpy as np
warnings.simplefilter("error")
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
import napari_affmae.engine
heavy = {{"torch"}} & set(sys.modules)
assert not heavy, heavy
from napari_affmae.config import SegmentConfig
from napari_affmae.engine import pretrain
from napari_affmae.data import open_source
import torch
threads = torch.get_num_threads()
source = open_source(np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8), axes="ZYX")
for event in pretrain([source], None, {str(pretrained[0])!r}, resume=True):
    pass
assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
assert threads == torch.get_num_threads()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_the_record_is_plain_json(pretrained):
    json.loads((pretrained[0] / "run.json").read_text(), parse_constant=pytest.fail)


def test_saved_checkpoints_are_told(pretrained):
    saved = of_type(pretrained[1], CheckpointSaved)
    assert [event.step for event in saved] == [4]
    assert (saved[0].path / "state.json").exists()
