"""What a run will take, measured on a few steps before it starts."""

from collections.abc import Generator
from contextlib import closing
from time import perf_counter

import numpy as np

from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.data import (
    LabelledPair,
    default_classes,
    normalize_sources,
    open_source,
)
from napari_affmae.engine.compute.device import DevicePlan, plan_device
from napari_affmae.engine.compute.memory import MemoryMeter, memory_meter
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.events import Event, MicroBatchHalved, PlanMeasured, PlanProgress
from napari_affmae.engine.store.run_length import Length
from napari_affmae.engine.store.starting_weights import AUTO, Start, find_origin
from napari_affmae.engine.training.finetuning import Finetuning
from napari_affmae.engine.training.image_memory import plan_pool
from napari_affmae.engine.training.labelled_data import Labelled
from napari_affmae.engine.training.networks import starting_autoencoder, starting_segmenter
from napari_affmae.engine.training.pretraining import Pretraining
from napari_affmae.engine.training.steps.batch import plan_batch
from napari_affmae.engine.training.steps.stepper import Stepper
from napari_affmae.engine.training.steps.task import Task

# After a slow warm-up one step tells enough.
_TIMED_STEPS = 2
_SLOW_SECONDS = 10.0
# Room for crops to move and to be deformed.
_MARGIN = 64


def measure_plan(
    config: PretrainConfig | FinetuneConfig,
    *,
    classes: int = 2,
    pretrained: Start = AUTO,
) -> Generator[Event, None, None]:
    """Measure how fast the steps of a run are and how much memory they take.

    One step to warm up, and on a GPU to record, and one or two that are timed,
    as the run makes them: its network, batch, masks, augmentation and optimiser.
    The images are random, which takes as long as real ones, but they are in
    memory: slow disks are not measured.

    Parameters
    ----------
    config : PretrainConfig or FinetuneConfig
        Settings of the run.
    classes : int
        Number of classes in fine-tuning, where the settings list none.
    pretrained : Start
        What the run starts from.

    Yields
    ------
    Event
        `PlanProgress` after each step, `MicroBatchHalved` where memory runs
        out, at last `PlanMeasured`. Closing the generator cancels.

    Raises
    ------
    DeviceUnavailableError
        If the device is not there.
    CheckpointError
        If the pretrained model does not fit.
    OutOfMemoryError
        If not even one crop fits.
    """
    plan = plan_device(config.device, config.precision)
    with (
        memory_meter(plan) as memory,
        closing(_make_task(config, classes, pretrained, plan)) as task,
    ):
        stepper = Stepper(task, Runtime(plan))
        try:
            seconds = yield from _time_steps(task, stepper, memory)
            peak = memory.peak
        finally:
            stepper.release()
    length = Length.of(config)
    total = length.total_steps(0, 0.0, seconds)
    size = stepper.batch.batch
    advice = None if total is None else task.judge_length(size * total, seconds / size)
    yield PlanMeasured(
        device=plan.words,
        precision=plan.precision,
        backend=plan.backend,
        parameters=sum(parameter.numel() for parameter in task.module.parameters()),
        batch=stepper.batch.batch,
        micro_batch=stepper.batch.micro_batch,
        seconds_per_step=seconds,
        memory=peak,
        memory_available=memory.available,
        total_seconds=length.seconds_left(0, 0.0, seconds),
        total_steps=total,
        advice=advice,
    )


def _time_steps(task: Task, stepper: Stepper, memory: MemoryMeter) -> Generator[Event, None, float]:
    """Make steps; return the mean duration of those after the first, in seconds."""
    durations: list[float] = []
    total = 1 + _TIMED_STEPS
    size = stepper.batch.batch
    while len(durations) < total:
        step = len(durations) + 1
        started = perf_counter()
        for _ in task.crops.advance(0):
            pass
        plan = task.crops.plan(size * (step - 1), size)
        # Without a learning rate: noise has nothing to teach, and must not diverge.
        while (launched := stepper.launch(plan, step, 0.0)) is None:
            yield MicroBatchHalved(step, stepper.batch.micro_batch, stepper.batch.accumulate)
            # The smaller passes are recorded in the first step that is made of them.
            durations.clear()
            memory.forget()
            started = perf_counter()
        stepper.read(launched)
        durations.append(perf_counter() - started)
        if durations[0] > _SLOW_SECONDS:
            total = 2
        yield PlanProgress(len(durations), total)
    return sum(durations[1:]) / len(durations[1:])


def _make_task(
    config: PretrainConfig | FinetuneConfig,
    classes: int,
    pretrained: Start,
    plan: DevicePlan,
) -> Task:
    """Make the task of a run on random images."""
    side = config.crop + _MARGIN
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (config.in_channels, side, side), dtype=np.uint8)
    image = open_source(pixels, axes="CYX", name="random image")
    (normalized,) = normalize_sources([image], config.normalization)
    place = plan_pool(plan, config.memory_share, None)
    origin = find_origin(pretrained, config.preset, config.in_channels)
    if isinstance(config, PretrainConfig):
        module, start = starting_autoencoder(config, origin)
        batch = plan_batch(config.batch, config.crop, start["preset"], "pretrain", plan)
        return Pretraining(config, module, [normalized], batch, place, start=start)
    known = config.classes or default_classes(range(classes))
    values = np.array([item.value for item in known], dtype=np.uint16)
    labels = open_source(values[random.integers(0, len(values), (side, side))], name="labels")
    data = Labelled([LabelledPair(normalized, labels)], [[0]], [[]], known)
    network, start = starting_segmenter(config, len(known), origin)
    batch = plan_batch(config.batch, config.crop, str(start["preset"]), "finetune", plan)
    return Finetuning(config, network, data, start, batch, place)
