"""Recorded passes, with a stand-in for the GPU's recording; test_gpu.py has the real one."""

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
from napari_affmae.engine.training.batch import BatchPlan
from napari_affmae.engine.training.finetuning import Finetuning, starting_network
from napari_affmae.engine.training.labelled_data import Labelled
from napari_affmae.engine.training.passes import CapturedPasses
from napari_affmae.engine.training.pretraining import Pretraining, pretrain
from napari_affmae.engine.training.stepper import Stepper
from napari_affmae.model import AFFMAE, AFFSegmenter, capture, preset
from napari_affmae.model.capture import CaptureError, Copies

LOGGER = "napari_affmae.engine"


@pytest.fixture
def recordings(monkeypatch):
    """Let "recorded" work be computed anew at each replay, into the same tensors; lists them.

    `of` are the parameters whose gradients it makes, `fails` an error of recording.
    """
    made = SimpleNamespace(of=[], count=0, fails=None)

    def record(work, memory):
        if made.fails is not None:
            raise made.fails
        made.count += 1
        before = [None if p.grad is None else p.grad.clone() for p in made.of]
        result = work()
        gradients = [p.grad for p in made.of]
        for grad, old in zip(gradients, before, strict=True):
            if old is not None:
                grad.copy_(old)

        def replay():
            for p, grad, old in zip(made.of, gradients, before, strict=True):
                p.grad = None if old is None else grad
            result.copy_(work())
            for p, grad in zip(made.of, gradients, strict=True):
                if grad is not None and p.grad is not grad:
                    grad.copy_(p.grad)

        return SimpleNamespace(replay=replay), result

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fork = torch.random.fork_rng
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: fork([]))
    monkeypatch.setattr(capture, "_record", record)
    return made


@pytest.fixture(scope="module")
def crops(image):
    planes = [torch.from_numpy(image.read(plane)[:, :64, :64]) for plane in range(5)]
    return torch.stack(planes).float() / 64


@pytest.fixture
def make(image, recordings):
    """Build a task and its stepper, with passes as they come or recorded."""

    def build(micro_batch, *, recorded, dropout=0.0, kind=Pretraining):
        torch.manual_seed(0)
        model = preset("nano").model_copy(update={"drop_path": dropout, "decoder_dropout": dropout})
        module = AFFMAE(model)
        module.register_parameter("unused", nn.Parameter(torch.zeros(3)))
        config = PretrainConfig(crop=64, steps=1)
        task = kind(config, module, normalize_sources([image], config.normalization), 5)
        runtime = Runtime(plan_device("cpu"))
        stepper = Stepper(task, runtime, BatchPlan(5, micro_batch))
        if recorded:
            stepper._passes = CapturedPasses(task, runtime)
            recordings.of = list(module.parameters())
        return task, stepper

    return build


def learn(task, stepper, crops, steps=3):
    measured = []
    for step in range(1, steps + 1):
        batch = task.prepare((crops + 0.1 * step,), step)
        measured.append(stepper.make(batch, step, 1e-3))
    return measured


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.loss == pytest.approx(other.loss, rel=1e-5)
        assert mine.losses == pytest.approx(other.losses, rel=1e-5)
        assert mine.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-4)


@pytest.mark.parametrize(("micro_batch", "shapes"), [(5, 1), (2, 2), (1, 1)])
def test_recorded_steps_equal_those_as_they_come(make, crops, recordings, micro_batch, shapes):
    """Also with a last part of another size, whose gradients add to those of the others."""
    (plain_task, plain), (task, recorded) = (make(micro_batch, recorded=r) for r in (False, True))
    assert_same(learn(task, recorded, crops), learn(plain_task, plain, crops))
    assert recordings.count == shapes
    assert task.module.unused.grad is None


def test_gradients_that_are_dropped_come_again(make, crops):
    (plain_task, plain), (task, recorded) = (make(2, recorded=r) for r in (False, True))
    first, expected = learn(task, recorded, crops, 1), learn(plain_task, plain, crops, 2)
    recorded.optimiser.zero_grad(set_to_none=True)
    second = recorded.make(task.prepare((crops + 0.2,), 2), 2, 1e-3)
    assert_same([*first, second], expected)


def test_recording_leaves_random_numbers_as_they_were(make, crops, recordings):
    """The step that records draws what it would have drawn, and so does every replay."""
    (plain_task, plain), (task, recorded) = (
        make(2, recorded=r, dropout=0.3) for r in (False, True)
    )
    expected = plain.make(plain_task.prepare((crops,), 7), 7, 0.0)
    prepared = task.prepare((crops,), 7)
    assert_same([recorded.make(prepared, 7, 0.0) for _ in range(2)], [expected] * 2)
    assert recorded.make(prepared, 8, 0.0).loss != expected.loss


def test_what_cannot_be_recorded_is_computed_as_it_comes(make, crops, recordings, caplog):
    (plain_task, plain), (task, recorded) = (make(2, recorded=r) for r in (False, True))
    recordings.fails = CaptureError("AcceleratorError: operation not permitted")
    with caplog.at_level(logging.WARNING, LOGGER):
        measured = learn(task, recorded, crops)
    assert_same(measured, learn(plain_task, plain, crops))
    (record,) = caplog.records
    assert "not recorded as CUDA graphs" in record.message
    assert "AcceleratorError: operation not permitted" in record.message


def test_what_cannot_be_recorded_within_a_step_keeps_its_gradients(make, crops, recordings):
    """The last part, of another size, fails after the others were recorded."""
    (plain_task, plain), (task, recorded) = (make(2, recorded=r) for r in (False, True))
    passes = recorded._passes
    original = passes._record

    def fail_later(*arguments):
        recordings.fails = CaptureError("no") if recordings.count else None
        return original(*arguments)

    passes._record = fail_later
    assert_same(learn(task, recorded, crops), learn(plain_task, plain, crops))
    assert not passes._recorded


def test_memory_that_runs_out_while_recording_halves(make, crops, recordings):
    task, recorded = make(5, recorded=True)
    assert learn(task, recorded, crops, 1)[0] is not None
    assert recorded.release()
    recordings.fails = torch.OutOfMemoryError("CUDA out of memory")
    assert learn(task, recorded, crops, 1) == [None]
    assert recorded.batch.micro_batch == 3
    assert not recorded._passes._recorded
    recordings.fails = None
    assert learn(task, recorded, crops, 1)[0] is not None
    assert recordings.count == 3


def test_errors_of_the_first_pass_are_no_matter_of_recording(make, crops):
    task, recorded = make(5, recorded=True)
    task.module.register_forward_pre_hook(lambda module, inputs: inputs[0].view(-1, 7))
    with pytest.raises(RuntimeError, match="shape"):
        learn(task, recorded, crops, 1)


def test_no_more_than_some_shapes_are_recorded(make, crops, recordings):
    task, recorded = make(5, recorded=True)
    for size in (64, 72, 80, 64):
        for count in (1, 2):
            part = nn.functional.interpolate(crops[:count], (size, size))
            task.config = task.config.model_copy(update={"crop": size})
            recorded._passes.clear()
            values = recorded._passes(task.prepare((part,), 1), 0.5)
            assert torch.isfinite(values).all()
    assert recordings.count == 4


def test_weights_of_classes_that_change_take_effect(image, labels, recordings):
    classes = default_classes([0, 1, 2, 3])
    config = FinetuneConfig(crop=64, steps=1, classes=classes)
    (normalized,) = normalize_sources([image], config.normalization)
    data = Labelled([LabelledPair(normalized, labels)], [[0, 1]], [[]], classes)
    curves = []
    for recorded in (False, True):
        module, start = starting_network(config, 4, None)
        task = Finetuning(config, module, data, start, 2)
        samples = [task.crops.sample(index) for index in range(2)]
        batch = tuple(torch.stack([torch.as_tensor(s[i]) for s in samples]) for i in range(2))
        runtime = Runtime(plan_device("cpu"))
        stepper = Stepper(task, runtime, BatchPlan(2, 2))
        if recorded:
            stepper._passes = CapturedPasses(task, runtime)
            recordings.of = list(module.parameters())
        curve = [stepper.make(batch, 1, 0.0).loss]
        task._weights = task._weights * torch.tensor([4.0, 1.0, 1.0, 0.5])
        curve.append(stepper.make(batch, 1, 0.0).loss)
        curves.append(curve)
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    assert curves[0][1] != pytest.approx(curves[0][0], rel=1e-3)


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return AFFSegmenter(preset("nano"), 3).eval()


def test_predictions_are_recorded_where_a_shape_comes_often(segmenter, recordings):
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
    tiles = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)).numpy()
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(12):
            assert predictor.tiles(tiles).sum(1) == pytest.approx(1.0, abs=1e-5)
    assert [record.message for record in caplog.records] == [
        "predictions are not recorded as CUDA graphs, so slower: no"
    ]


def test_validation_that_lacks_memory_gets_that_of_the_recorded_passes(
    tmp_path, image, pretrain_config, monkeypatch
):
    released = []
    validate = Pretraining.validate

    def starve_once(self, runtime, step):
        if not released:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (yield from validate(self, runtime, step))

    def release(self):
        released.append(True)
        return True

    monkeypatch.setattr(Pretraining, "validate", starve_once)
    monkeypatch.setattr(Stepper, "release", release)
    events = list(pretrain([image], pretrain_config, tmp_path))
    assert [event.step for event in events if isinstance(event, Validated)] == [2, 4]
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3, 4]
    released.clear()
    monkeypatch.setattr(Stepper, "release", lambda self: False)
    with pytest.raises(torch.OutOfMemoryError):
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
