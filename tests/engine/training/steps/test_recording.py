"""Recorded steps and predictions, with a stand-in for a GPU; test_gpu.py has the real one."""

import copy
import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.data import LabelledPair, default_classes, normalize_sources
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.events import StepDone, Validated
from napari_affmae.engine.inference.forward_passes import ForwardPasses
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.store.starting_weights import Origin
from napari_affmae.engine.training.finetuning import Finetuning
from napari_affmae.engine.training.image_memory import PoolPlan
from napari_affmae.engine.training.labelled_data import Labelled
from napari_affmae.engine.training.networks import starting_segmenter
from napari_affmae.engine.training.pretraining import Pretraining, pretrain
from napari_affmae.engine.training.steps.batch import BatchPlan
from napari_affmae.engine.training.steps.stepper import Stepper
from napari_affmae.errors import OutOfMemoryError
from napari_affmae.model import AFFMAE, AFFSegmenter, capture, preset
from napari_affmae.model.capture import CaptureError, Copies

LOGGER = "napari_affmae.engine"


@pytest.fixture
def recordings(monkeypatch):
    """Let "recorded" work be computed anew at each replay, into the same tensor; counts them.

    `shapes` are those of what is recorded one after the other, of a step the gradients and the
    update: what has a shape must not be made while it is recorded. `fails` is an error of
    recording.
    """
    made = SimpleNamespace(shapes=[None, ()], count=0, fails=None)

    def record(work, memory, generator):
        if made.fails is not None:
            raise made.fails
        shape = made.shapes[made.count % len(made.shapes)]
        made.count += 1
        result = work() if shape is None else torch.empty(shape)

        def replay():
            result.copy_(work())

        return SimpleNamespace(replay=replay), result

    def attach(self, gradients):
        # A replay on a GPU writes where the recording wrote; here it made others.
        for parameter, kept in zip(self._parameters, gradients, strict=True):
            if kept is not None and parameter.grad is not None:
                kept.copy_(parameter.grad)
            parameter.grad = kept

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fork = torch.random.fork_rng
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: fork([]))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(capture, "_record", record)
    monkeypatch.setattr(capture.CapturedStep, "_attach", attach)
    return made


@pytest.fixture
def make(image, recordings):
    """Build a task and its stepper, whose steps are made as they come or recorded."""

    def build(micro_batch, *, recorded, dropout=0.0):
        torch.manual_seed(0)
        model = preset("nano").model_copy(update={"drop_path": dropout, "decoder_dropout": dropout})
        module = AFFMAE(model)
        module.register_parameter("unused", nn.Parameter(torch.zeros(3)))
        config = PretrainConfig(crop=64, steps=1)
        runtime = Runtime(plan_device("cpu"))
        task = Pretraining(
            config,
            module,
            normalize_sources([image], config.normalization),
            BatchPlan(5, micro_batch),
            PoolPlan(runtime.plan.device, 2**20),
        )
        task.crops.pool.fill()
        stepper = Stepper(task, runtime)
        stepper._can_record = recorded
        return task, stepper

    return build


def learn(task, stepper, steps=3, first=1):
    measured = []
    for step in range(first, first + steps):
        launched = stepper.launch(task.crops.plan(5 * step, 5), step, 1e-3)
        measured.append(None if launched is None else stepper.read(launched))
    return measured


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.loss == pytest.approx(other.loss, rel=1e-5)
        assert mine.losses == pytest.approx(other.losses, rel=1e-5)
        assert mine.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-4)


@pytest.mark.parametrize("micro_batch", [5, 2, 1])
def test_recorded_steps_equal_those_as_they_come(make, recordings, micro_batch):
    """Also with a last part of another size; recording itself changes no weight."""
    (plain_task, plain), (task, recorded) = (make(micro_batch, recorded=r) for r in (False, True))
    assert_same(learn(task, recorded), learn(plain_task, plain))
    assert recordings.count == 2
    assert task.module.unused.grad is None
    for mine, other in zip(task.module.parameters(), plain_task.module.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_recording_leaves_random_numbers_as_they_were(make):
    """The step that records draws what it would have drawn, and so does every replay."""
    (_, plain), (task, recorded) = (make(2, recorded=r, dropout=0.3) for r in (False, True))
    plan = task.crops.plan(0, 5)
    expected = plain.read(plain.launch(plan, 7, 0.0))
    assert_same([recorded.read(recorded.launch(plan, 7, 0.0)) for _ in range(2)], [expected] * 2)
    assert recorded.read(recorded.launch(plan, 8, 0.0)).loss != expected.loss


def test_what_cannot_be_recorded_is_computed_as_it_comes(make, recordings, caplog):
    (plain_task, plain), (task, recorded) = (make(2, recorded=r) for r in (False, True))
    recordings.fails = CaptureError("AcceleratorError: operation not permitted")
    with caplog.at_level(logging.WARNING, LOGGER):
        measured = learn(task, recorded)
    assert_same(measured, learn(plain_task, plain))
    (record,) = caplog.records
    assert "not recorded as CUDA graphs" in record.message
    assert "AcceleratorError: operation not permitted" in record.message


def test_memory_that_runs_out_while_recording_halves(make, recordings):
    task, recorded = make(5, recorded=True)
    assert learn(task, recorded, 1)[0] is not None
    assert recorded.release()
    recordings.fails = torch.OutOfMemoryError("CUDA out of memory")
    assert learn(task, recorded, 1) == [None]
    assert recorded.batch.micro_batch == 3
    recordings.fails = None
    assert learn(task, recorded, 1)[0] is not None
    assert recordings.count == 4


def test_errors_of_the_first_pass_are_no_matter_of_recording(make):
    task, recorded = make(5, recorded=True)
    task.module.register_forward_pre_hook(lambda module, inputs: inputs[0].view(-1, 7))
    with pytest.raises(RuntimeError, match="shape"):
        learn(task, recorded, 1)


def test_weights_of_classes_that_change_take_effect(image, labels, recordings):
    classes = default_classes([0, 1, 2, 3])
    config = FinetuneConfig(crop=64, steps=1, classes=classes)
    (normalized,) = normalize_sources([image], config.normalization)
    data = Labelled([LabelledPair(normalized, labels)], [[0, 1]], [[]], classes)
    curves = []
    for recorded in (False, True):
        module, start = starting_segmenter(config, 4, Origin(None))
        runtime = Runtime(plan_device("cpu"))
        place = PoolPlan(runtime.plan.device, 2**20)
        task = Finetuning(config, module, data, start, BatchPlan(2, 2), place)
        task.crops.pool.fill()
        stepper = Stepper(task, runtime)
        stepper._can_record = recorded
        plan = task.crops.plan(0, 2)
        curve = [stepper.read(stepper.launch(plan, 1, 0.0)).loss]
        task._weights = task._weights * torch.tensor([4.0, 1.0, 1.0, 0.5])
        curve.append(stepper.read(stepper.launch(plan, 1, 0.0)).loss)
        curves.append(curve)
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    assert curves[0][1] != pytest.approx(curves[0][0], rel=1e-3)


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return AFFSegmenter(preset("nano"), 3).eval()


def test_predictions_are_recorded_where_a_shape_comes_often(segmenter, recordings):
    recordings.shapes = [None]
    passes = ForwardPasses(segmenter, Runtime(plan_device("cpu")))
    passes._can_record = True
    generator = torch.Generator().manual_seed(0)
    with evaluating(segmenter):
        for number in range(10):
            for count in (2, 1):
                tiles = torch.randn(count, 1, 64, 64, generator=generator)
                expected = segmenter(tiles).softmax(1)
                torch.testing.assert_close(passes(tiles), expected)
            assert recordings.count == (0 if number < 8 else 2)
        passes.release()
        torch.testing.assert_close(passes(tiles), expected)
    assert recordings.count == 3


def test_predictions_that_cannot_be_recorded_come_all_the_same(segmenter, recordings, caplog):
    predictor = Predictor(segmenter, Runtime(plan_device("cpu")), 64, 0.25, 2)
    predictor._passes._can_record = True
    recordings.fails = CaptureError("no")
    tiles = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(12):
            (chances,) = predictor.tiles(tiles)
            assert chances.sum(1).numpy() == pytest.approx(1.0, abs=1e-5)
    assert [record.message for record in caplog.records] == [
        "predictions are not recorded as CUDA graphs, so slower: no"
    ]


def test_validation_that_lacks_memory_gets_that_of_the_recorded_passes(
    tmp_path, image, pretrain_config, monkeypatch
):
    released = []
    validate = Pretraining.validate

    def starve_once(self, runtime, step):
        if step and not released:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (yield from validate(self, runtime, step))

    def release(self):
        released.append(True)
        return True

    monkeypatch.setattr(Pretraining, "validate", starve_once)
    monkeypatch.setattr(Stepper, "release", release)
    events = list(pretrain([image], pretrain_config, tmp_path))
    assert [event.step for event in events if isinstance(event, Validated)] == [0, 2, 4]
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3, 4]
    released.clear()
    monkeypatch.setattr(Stepper, "release", lambda self: False)
    with pytest.raises(OutOfMemoryError, match="CUDA out of memory"):
        list(pretrain([image], pretrain_config, tmp_path / "other"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_casts_are_kept_or_not_within_a_block_alone(precision):
    runtime = Runtime(plan_device("cpu", precision))
    for keep in (True, False):
        with runtime.computing(keep_casts=keep):
            assert torch.is_autocast_cache_enabled() == keep
        assert torch.is_autocast_cache_enabled()


def test_copies_compute_what_autocast_computes(segmenter):
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    results = []
    for copied in (False, True):
        module = copy.deepcopy(segmenter)
        network = Copies(module, torch.bfloat16) if copied else module
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            logits = network(images)
        logits.float().square().mean().backward()
        results.append((logits, [p.grad for p in module.parameters()]))
    (expected, gradients), (found, copied) = results
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    for mine, other in zip(copied, gradients, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert mine.dtype == torch.float32
            assert (mine - other).norm() <= 0.05 * other.norm() + 1e-4


def test_copies_predict(segmenter):
    """In inference mode, as predictions are made."""
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with evaluating(segmenter), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        found, expected = Copies(segmenter, torch.bfloat16)(images), segmenter(images)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
