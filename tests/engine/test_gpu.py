"""What only a CUDA GPU can show."""

import logging
import threading

import numpy as np
import pytest
import torch
from torch import nn

from napari_affmae.config import FinetuneConfig, PretrainConfig, SegmentConfig
from napari_affmae.data import LabelledPair, default_classes, normalize_sources
from napari_affmae.engine import finetune, load_model, measure_plan, pretrain, segment
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.events import (
    MicroBatchHalved,
    Notice,
    PlaneDone,
    PlanMeasured,
    RunFinished,
    RunStarted,
    StepDone,
)
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.store.checkpoints import list_checkpoints, read_state
from napari_affmae.engine.store.starting_weights import Origin
from napari_affmae.engine.training.finetuning import Finetuning
from napari_affmae.engine.training.image_memory import PoolPlan
from napari_affmae.engine.training.labelled_data import Labelled
from napari_affmae.engine.training.networks import starting_segmenter
from napari_affmae.engine.training.pretraining import Pretraining
from napari_affmae.engine.training.steps.batch import BatchPlan
from napari_affmae.engine.training.steps.stepper import Stepper
from napari_affmae.model import AFFMAE, QuickSegmenter, preset

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
LOGGER = "napari_affmae.engine"
# How far losses of equal steps lie apart, where sums are in another order.
NOISE = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 2e-2}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_all_tasks_in_every_precision(tmp_path, image, labels, precision):
    shared = {"crop": 64, "batch": 4, "steps": 10, "precision": precision, "device": "cuda"}
    events = list(pretrain([image], PretrainConfig(**shared), tmp_path / "p"))
    started = next(event for event in events if isinstance(event, RunStarted))
    assert "GB" in started.device
    assert started.precision == precision
    assert len([event for event in events if isinstance(event, StepDone)]) == 10
    notice = events[events.index(started) + 1]
    assert isinstance(notice, Notice)
    assert "compiles kernels" in notice.message
    pairs = [(image, labels)]
    events = list(
        finetune(pairs, FinetuneConfig(**shared), tmp_path / "f", pretrained=tmp_path / "p")
    )
    assert isinstance(events[-1], RunFinished)
    config = SegmentConfig(device="cuda", precision=precision, batch=2)
    planes = [e for e in segment(image, tmp_path / "f", config) if isinstance(e, PlaneDone)]
    assert len(planes) == image.n_planes


def test_the_loss_scaler_is_resumed(tmp_path, image):
    config = PretrainConfig(crop=64, batch=4, steps=20, precision="fp16", device="cuda")
    events = pretrain([image], config, tmp_path)
    next(event for event in events if isinstance(event, StepDone) and event.step == 12)
    events.close()
    folder = tmp_path / "checkpoints"
    scaler = read_state(folder / f"step_{list_checkpoints(folder)[-1]:08d}")["scaler"]
    assert scaler["scale"] > 1
    events = list(pretrain([image], None, tmp_path, resume=True))
    assert events[-1].step == 20


def test_memory_of_the_gpu_that_is_used_up(tmp_path, image):
    """Two thirds of what the batch takes are there."""
    config = PretrainConfig(crop=512, batch=16, steps=2, precision="fp32", device="cuda")
    torch.cuda.reset_peak_memory_stats()
    list(pretrain([image], config, tmp_path / "fits"))
    peak = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(peak * 2 / 3 / total)
    try:
        events = list(pretrain([image], config, tmp_path / "tight"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    halved = [event for event in events if isinstance(event, MicroBatchHalved)]
    assert halved
    assert halved[0].micro_batch == 8
    assert len([event for event in events if isinstance(event, StepDone)]) == 2


@pytest.fixture
def make(image):
    """Build a task and its stepper, whose passes are recorded or come as they are."""

    def build(batch, *, captured, precision="fp32", dropout=0.0, kind=Pretraining):
        torch.manual_seed(0)
        model = preset("nano").model_copy(update={"drop_path": dropout, "decoder_dropout": dropout})
        module = AFFMAE(model)
        module.register_parameter("unused", nn.Parameter(torch.zeros(3)))
        config = PretrainConfig(crop=64, steps=1)
        sources = normalize_sources([image], config.normalization)
        runtime = Runtime(plan_device("cuda", precision))
        task = kind(config, module, sources, batch, PoolPlan(runtime.plan.device, 2**20))
        task.crops.pool.fill()
        return task, Stepper(task, runtime, capture=captured)

    return build


def step_of(stepper, plan, step, rate=0.0):
    """Make a step and look at what it measured."""
    return stepper.read(stepper.launch(plan, step, rate))


def learn(task, stepper, steps, rate=1e-3):
    """Make steps on the crops of a run."""
    size = stepper.batch.batch
    return [
        step_of(stepper, task.crops.plan(size * step, size), step, rate)
        for step in range(1, steps + 1)
    ]


def warnings_of(caplog):
    """What was logged."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def recorded(stepper):
    return stepper._recorded is not None


@pytest.mark.parametrize("micro_batch", [8, 3])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_captured_steps_equal_eager_ones(make, precision, micro_batch):
    """Also where gradients add up, over parts of which the last has another size."""
    runs = []
    for captured in (False, True):
        task, stepper = make(BatchPlan(8, micro_batch), captured=captured, precision=precision)
        runs.append(learn(task, stepper, 6))
    assert recorded(stepper)
    assert task.module.unused.grad is None
    for eager, captured in zip(*runs, strict=True):
        assert captured.loss == pytest.approx(eager.loss, rel=NOISE[precision])
        assert captured.losses == pytest.approx(eager.losses, rel=NOISE[precision])
        assert (captured.gradient_norm is None) == (eager.gradient_norm is None)
        if eager.gradient_norm is not None:
            tolerance = 10 * NOISE[precision]
            assert captured.gradient_norm == pytest.approx(eager.gradient_norm, rel=tolerance)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_captured_runs_learn_like_eager_ones(make, precision):
    curves = []
    for captured in (False, True):
        task, stepper = make(BatchPlan(4, 4), captured=captured, precision=precision, dropout=0.1)
        curves.append(torch.tensor([step.loss for step in learn(task, stepper, 200)]))
    eager, captured = curves
    torch.testing.assert_close(captured, eager, rtol=0.15, atol=0)
    torch.testing.assert_close(captured[-50:].mean(), eager[-50:].mean(), rtol=0.03, atol=0)
    assert captured[-50:].mean() < 0.9 * captured[:10].mean()


@pytest.mark.parametrize("micro_batch", [4, 3])
def test_captured_dropout_is_drawn_by_step(make, micro_batch):
    """The step that records, and replays of it, draw what an eager step draws."""
    losses = []
    for captured in (False, True):
        task, stepper = make(BatchPlan(4, micro_batch), captured=captured, dropout=0.3)
        plan = task.crops.plan(0, 4)
        losses.append([step_of(stepper, plan, step).loss for step in (3, 3, 4, 3)])
    for eager, replayed in zip(*losses, strict=True):
        assert replayed == pytest.approx(eager, rel=1e-4)
    assert losses[1][0] == pytest.approx(losses[1][3], rel=1e-5)
    # Random weights predict little, of which dropout changes little.
    assert losses[1][0] != pytest.approx(losses[1][2], rel=2e-5)


def test_replays_scale_the_loss_as_it_is_scaled_now(make):
    task, stepper = make(BatchPlan(4, 4), captured=True, precision="fp16")
    plan = task.crops.plan(0, 4)
    norms = []
    for scale in (512.0, 64.0, 2048.0):
        stepper.updater.load(task.module, {}, {"scale": scale, "_growth_tracker": 0})
        norms.append(step_of(stepper, plan, 1).gradient_norm)
        assert stepper.updater.scaler["scale"] == scale
    assert recorded(stepper)
    assert norms[1:] == pytest.approx([norms[0]] * 2, rel=0.02)


class Waiting(Pretraining):
    """Its loss makes the host wait for the GPU, so that it cannot be recorded."""

    def loss(self, network, *batch):
        loss, losses = super().loss(network, *batch)
        return loss * (2.0 if loss.item() > 1e9 else 1.0), losses


@pytest.mark.parametrize("micro_batch", [4, 3])
def test_what_cannot_be_captured_trains_all_the_same(make, micro_batch, caplog):
    runs = []
    with caplog.at_level(logging.WARNING, LOGGER):
        for kind in (Pretraining, Waiting):
            task, stepper = make(
                BatchPlan(4, micro_batch), captured=kind is Waiting, dropout=0.1, kind=kind
            )
            runs.append([step.loss for step in learn(task, stepper, 4)])
    assert runs[1] == pytest.approx(runs[0], rel=1e-3)
    (record,) = caplog.records
    assert "not recorded as CUDA graphs" in record.message
    # What failed leaves nothing behind that would trouble the next run.
    torch.cuda.empty_cache()
    task, stepper = make(BatchPlan(4, micro_batch), captured=True, dropout=0.1)
    assert [step.loss for step in learn(task, stepper, 4)] == pytest.approx(runs[0], rel=1e-3)
    assert recorded(stepper)


def test_weights_of_classes_that_change_reach_replays(image, labels):
    classes = default_classes([0, 1, 2, 3])
    config = FinetuneConfig(crop=64, steps=1, classes=classes)
    (normalized,) = normalize_sources([image], config.normalization)
    data = Labelled([LabelledPair(normalized, labels)], [[0, 1]], [[]], classes)
    curves = []
    for captured in (False, True):
        module, start = starting_segmenter(config, 4, Origin(None))
        runtime = Runtime(plan_device("cuda", "fp32"))
        place = PoolPlan(runtime.plan.device, 2**20)
        task = Finetuning(config, module, data, start, BatchPlan(2, 2), place)
        task.crops.pool.fill()
        stepper = Stepper(task, runtime, capture=captured)
        plan = task.crops.plan(0, 2)
        curve = [step_of(stepper, plan, 1).loss]
        task._weights = task._weights * torch.tensor([4.0, 1.0, 1.0, 0.5])
        curve.append(step_of(stepper, plan, 1).loss)
        curves.append(curve)
    assert recorded(stepper)
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert curves[0][1] != pytest.approx(curves[0][0], rel=1e-2)


def quick_segmenter():
    torch.manual_seed(0)
    return QuickSegmenter.from_network(AFFMAE(preset("nano")), 3, 32, 2.0).eval()


def chances(predictor, tiles):
    """Predict a batch; the next prediction may take the memory of the last."""
    (probabilities,) = predictor.tiles(tiles)
    return probabilities.cpu().numpy()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("quick", [False, True])
def test_captured_predictions_equal_eager_ones(finetuned, precision, quick, caplog):
    module = quick_segmenter() if quick else load_model(finetuned[0])[0]
    runtime = Runtime(plan_device("cuda", precision))
    module.cuda()
    eager = Predictor(module, runtime, 64, 0.25, 4, capture=False)
    captured = Predictor(module, runtime, 64, 0.25, 4)
    generator = torch.Generator().manual_seed(0)
    tolerance = 10 * NOISE[precision]
    with caplog.at_level(logging.WARNING, LOGGER):
        for number in range(24):
            # Batches and the rest of a row; at last with other weights.
            tiles = torch.randn(4 if number % 2 else 3, 1, 64, 64, generator=generator)
            assert chances(captured, tiles) == pytest.approx(chances(eager, tiles), abs=tolerance)
            if number == 20:
                assert len(captured._passes._recorded) == 2
                before = chances(captured, tiles)
                with torch.no_grad():
                    for parameter in module.parameters():
                        parameter.mul_(0.5)
                assert abs(chances(captured, tiles) - before).max() > 1e-3
    assert not warnings_of(caplog)


@pytest.mark.parametrize("batch", [1, 5, "auto"])
def test_segmentation_of_planes(image, finetuned, batch):
    """With more tiles than it takes until passes of one are recorded."""

    def planes_of(**options):
        config = SegmentConfig(precision="fp32", tile=64, overlap=0.5, **options)
        return [e for e in segment(image, finetuned[0], config) if isinstance(e, PlaneDone)]

    planes, expected = planes_of(device="cuda", batch=batch), planes_of(device="cpu")
    for ours, theirs in zip(planes, expected, strict=True):
        assert (ours.labels != theirs.labels).mean() < 0.01
    for ours, again in zip(planes, planes_of(device="cuda", batch=batch), strict=True):
        np.testing.assert_array_equal(ours.labels, again.labels)


def test_as_many_tiles_as_fit_are_predicted_at_once(finetuned):
    module = load_model(finetuned[0])[0].cuda()
    runtime = Runtime(plan_device("cuda", "fp32"))
    predictor = Predictor(module, runtime, 64, 0.25, "auto")
    tiles = torch.zeros(200, 1, 64, 64)
    counts = [len(chances) for chances in predictor.tiles(tiles)]
    assert predictor.batch == counts[0] == 128
    assert sum(counts) == 200


def test_runs_in_a_thread_beside_other_work_on_the_gpu(tmp_path, image, labels, caplog):
    """As in a window: steps are recorded and replayed while another thread computes."""
    failures = []

    def run():
        shared = {"crop": 64, "batch": 4, "steps": 12, "validation_steps": 5, "device": "cuda"}
        try:
            list(pretrain([image], PretrainConfig(**shared), tmp_path / "p"))
            config = FinetuneConfig(**shared)
            list(finetune([(image, labels)], config, tmp_path / "f", pretrained=tmp_path / "p"))
        except Exception as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    thread = threading.Thread(target=run)
    x = torch.randn(256, 256, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    with caplog.at_level(logging.WARNING, LOGGER):
        thread.start()
        while thread.is_alive():
            assert torch.isfinite((x @ x).sum()).item()
        thread.join()
    assert not failures
    assert not warnings_of(caplog)


def test_a_plan_is_measured_on_captured_steps(caplog):
    config = PretrainConfig(crop=64, batch=4, steps=100, device="cuda")
    with caplog.at_level(logging.WARNING, LOGGER):
        plan = list(measure_plan(config))[-1]
    assert isinstance(plan, PlanMeasured)
    # Recording alone takes longer.
    assert plan.seconds_per_step < 0.2
    assert not warnings_of(caplog)
