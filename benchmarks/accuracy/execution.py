"""Carrying out one job: training that goes on where it was stopped, and its result."""

import json
import math
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from environment import describe

from accuracy.datasets import UNLABELLED, Dataset, pretraining_images
from accuracy.jobs import PretrainJob, SegmentJob, model_of
from accuracy.tasks import MaskedPretraining, Segmentation, segmenter
from napari_affmae.config import RUN_FILE, PretrainConfig, TrainingConfig
from napari_affmae.data import PretrainCrops, normalize_sources, normalize_when_read
from napari_affmae.engine import read_metrics
from napari_affmae.engine.compute.device import DevicePlan, plan_device
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.events import Event, Notice, StepDone
from napari_affmae.engine.store.model_files import load_weights
from napari_affmae.engine.store.run_folder import RunFolder
from napari_affmae.engine.store.run_state import RunState
from napari_affmae.engine.store.starting_weights import named_start
from napari_affmae.engine.training.image_memory import PoolPlan, plan_pool
from napari_affmae.engine.training.labelled_data import Labelled
from napari_affmae.engine.training.steps.batch import plan_batch
from napari_affmae.engine.training.steps.loop import Training
from napari_affmae.engine.training.steps.task import Task

RANKED_CROPS = 16
GIB = 2**30


class TimeIsUpError(Exception):
    """The campaign's time is over; the job has left a checkpoint and goes on later."""


@dataclass(frozen=True)
class Site:
    """Where and until when jobs are carried out.

    Attributes
    ----------
    runs : Path
        Folder of the run folders.
    data : Path
        Folder of the labelled sets and of unlabelled images.
    extra : tuple of Path
        More images to pretrain on.
    device : str
        ``"cuda"`` or ``"cpu"``.
    workers : int
        How many processes share the device.
    deadline : float
        When to stop, in seconds of the system's clock.
    """

    runs: Path
    data: Path
    extra: tuple[Path, ...]
    device: str
    workers: int
    deadline: float


def carry_out(
    job: PretrainJob | SegmentJob, site: Site, results: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Do a job, or the rest of it.

    Parameters
    ----------
    job : PretrainJob or SegmentJob
        The job.
    site : Site
        Where.
    results : Mapping
        Results of the jobs that it needs, by name.

    Returns
    -------
    dict
        Its result, as JSON.

    Raises
    ------
    TimeIsUpError
        Before it was done; it can go on.
    """
    machine = describe(torch.device(site.device))
    if isinstance(job, PretrainJob):
        result = _pretrain(job, site)
    elif job.family == "forest":
        result = _grow_forest(job, site)
    else:
        result = _finetune(job, site, results)
    return {**result, "machine": machine, "job": job.model_dump(mode="json")}


def _pretrain(job: PretrainJob, site: Site) -> dict[str, Any]:
    config, plan = _settle(job.config(site.device))
    sources = pretraining_images(site.data, job.sets, site.extra)
    normalized = normalize_when_read(sources, config.normalization, None)
    run = site.runs / job.name
    batch = plan_batch(config.batch, config.crop, job.preset, "pretrain", plan)
    with closing(
        MaskedPretraining(job, config, normalized, batch, _place(run, config, plan))
    ) as task:
        beside = 1 if job.is_timed else site.workers
        result = _train(job, task, run, plan, site, beside)
        load_weights(task.module, model_of(site.runs, job.name))
        ranks = {name: _ranks(task, site.data / name, plan) for name in job.sets}
    shutil.rmtree(run / "checkpoints")
    images = {"images": len(sources), "unlabelled": (site.data / UNLABELLED).is_dir()}
    return {**result, **images, "effective_rank": ranks}


def _finetune(job: SegmentJob, site: Site, results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    dataset = Dataset.open(site.data / job.dataset)
    pairs = dataset.take(job.budget)
    config, plan = _settle(job.config(site.device, dataset.classes, results))
    data = Labelled.of(pairs, dataset.val, config, dataset.classes, None)
    run = site.runs / job.name
    module, scales = segmenter(job, config, len(dataset.classes), _start(job, site))
    batch = plan_batch(config.batch, config.crop, job.preset, "finetune", plan)
    place = _place(run, config, plan)
    with closing(Segmentation(job, module, scales, config, data, batch, place)) as task:
        result = _train(job, task, run, plan, site, beside=site.workers)
    validations = [line for line in read_metrics(run) if line["event"] == "validation"]
    best = max(validations, key=lambda line: line["mean_iou"])
    shutil.rmtree(run)
    return {
        **result,
        "planes": sum(image.n_planes for image, _ in pairs),
        "mean_iou": best["mean_iou"],
        "iou": best["iou"],
        "best_step": best["step"],
        "validations": [(line["step"], line["mean_iou"]) for line in validations],
    }


def _grow_forest(job: SegmentJob, site: Site) -> dict[str, Any]:
    # Networks need no scikit-learn.
    from baselines import PixelForest, score  # noqa: PLC0415

    dataset = Dataset.open(site.data / job.dataset)
    pairs = dataset.take(job.budget)
    started = time.perf_counter()
    forest = PixelForest(seed=job.seed)
    forest.fit(pairs)
    seconds = time.perf_counter() - started
    scores = score(forest, dataset.val, dataset.classes)
    return {
        "planes": sum(image.n_planes for image, _ in pairs),
        "seconds": seconds,
        "gpu_seconds": 0.0,
        "mean_iou": scores.mean_iou,
        "iou": {name: None if math.isnan(iou) else iou for name, iou in scores.iou.items()},
    }


def _train(
    job: PretrainJob | SegmentJob,
    task: Task,
    run: Path,
    plan: DevicePlan,
    site: Site,
    beside: int,
) -> dict[str, Any]:
    """Train to the end; go on with the run in the folder, if there is one."""
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    parameters = sum(parameter.numel() for parameter in task.module.parameters())
    with RunFolder(run) as folder:
        if not folder.holds_run():
            facts = {"batch": task.batch.batch, "pool": task.crops.pool.state.capacity}
            folder.write_record(task.kind, task.config, {**facts, "data": []})
        training = Training(task, folder, Runtime(plan))
        training.load_latest()
        last = _follow(training.events(), job.name, site.deadline)
        latest = folder.latest()
        assert latest is not None, "a finished run has a checkpoint"
        state = RunState.read(latest)
    memory = torch.cuda.max_memory_allocated() / GIB if plan.device.type == "cuda" else None
    return {
        "steps": state.step,
        "crops": state.step * task.batch.batch,
        "seconds": state.elapsed,
        "gpu_seconds": state.elapsed / beside,
        "workers": beside,
        "crops_per_second": last.images_per_second if last else None,
        "loss": last.loss if last else None,
        "parameters": parameters,
        "gib": memory,
    }


def _follow(events: Generator[Event, None, None], name: str, deadline: float) -> StepDone | None:
    """Run to the end or to the deadline; returns the last step that was made now."""
    last = None
    with closing(events):
        for event in events:
            if isinstance(event, StepDone):
                last = event
            elif isinstance(event, Notice) and event.level == "warning":
                print(f"{name}: {event.message}", flush=True)
            if time.time() > deadline:
                raise TimeIsUpError(name)
    return last


def _settle(config: Any) -> tuple[Any, DevicePlan]:
    """Plan the device; on CPUs, for trials of the scripts, in the precision that they have."""
    if config.device == "cpu":
        config = config.model_copy(update={"precision": "fp32"})
    return config, plan_device(config.device, config.precision)


def _place(run: Path, config: TrainingConfig, plan: DevicePlan) -> PoolPlan:
    # Not by the engine's reader: records of the ViT lack what it wants of a network.
    record = run / RUN_FILE
    stored = json.loads(record.read_text()) if record.exists() else None
    return plan_pool(plan, config.memory_share, stored)


def _start(job: SegmentJob, site: Site) -> Path | None:
    if job.start is None:
        return None
    return named_start(job.start) if job.from_outside else model_of(site.runs, job.start)


def _ranks(task: MaskedPretraining, folder: Path, plan: DevicePlan) -> list[float]:
    """Measure the encoder on validation crops of a set."""
    config: PretrainConfig = task.config
    sources = [image for image, _ in Dataset.open(folder).val]
    images, left_out = PretrainCrops.fixed(
        normalize_sources(sources, config.normalization),
        config.crop,
        RANKED_CROPS,
        device=plan.device,
    )
    if images is None:
        raise next(iter(left_out.values()))
    with evaluating(task.module), Runtime(plan).computing():
        return list(task.feature_ranks(images))
