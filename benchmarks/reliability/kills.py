"""Kill runs at random moments and go on with them; nothing may be lost or differ.

Tiny runs on a CPU, each in a process of its own that gets SIGKILL after a random
time, until one comes to its end. After each kill:

- a pretraining or fine-tuning has on disk each checkpoint of which it has told, or a
  later one; at its end, weights and measurements equal those of an uninterrupted run;
- the result of a segmentation is complete and right, or not there.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from napari_affmae.cli.inputs import Reading
from napari_affmae.cli.segment import run_segment
from napari_affmae.cli.terminal import Terminal
from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import finetune, pretrain, read_metrics
from napari_affmae.engine.events import CheckpointSaved, Event, RunFinished
from napari_affmae.engine.store.checkpoints import checkpoint_path, list_checkpoints
from napari_affmae.engine.store.run_state import RunState
from napari_affmae.engine.store.tensors import read_tensors
from napari_affmae.errors import AffmaeError, CheckpointError
from reliability import children

STEPS = 8
_SECONDS = 300.0
_COMMON: dict[str, Any] = {
    "crop": 64,
    "batch": 2,
    "steps": STEPS,
    "validation_steps": 3,
    "device": "cpu",
    "checkpoint_minutes": 1e-9,
}
_PLANES = 8
# How long measurements took differs from run to run, and what lay in memory with it.
_TIMED = ("pool",)


@dataclass
class Tally:
    """What came of the kills of one task.

    Attributes
    ----------
    task : str
        What was killed.
    kills, runs, complete : int
        Kills, runs that came to their end, and ends that came before the kill.
    before_record, lost : int
        Kills before there was anything to go on with, and steps that were made and
        not in a checkpoint yet.
    faults : list of str
        What must not be.
    """

    task: str
    kills: int = 0
    runs: int = 0
    before_record: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)


def hunt(place: Path, count: int, seed: int = 0, *, only: str = "") -> list[Tally]:
    """Kill so many runs, a third of each task.

    Parameters
    ----------
    place : Path
        An empty folder for the runs.
    count : int
        How many kills in all.
    seed : int
        Of the moments.
    only : str
        Take the tasks whose names hold this.
    """
    tasks = {"pretraining": _trainings, "fine-tuning": _trainings, "segmenting": _segmentings}
    chosen = {name: attempts for name, attempts in tasks.items() if only in name}
    tallies = []
    for number, (name, attempts) in enumerate(chosen.items()):
        tally = Tally(name)
        share = count // len(chosen) + (number < count % len(chosen))
        folder = place / name
        folder.mkdir(parents=True)
        for _ in attempts(folder, tally, share, random.Random(f"{name} {seed}")):
            pass
        tallies.append(tally)
    return tallies


def finished_run(place: Path) -> Path:
    """Make a fine-tuning run that has come to its end."""
    run = place / "runs" / "run"
    ending = children.run(_train, ["fine-tuning", run], _SECONDS)
    if ending.code != 0:
        raise ValueError(f"an uninterrupted run ended with {ending.code}: {ending.told}")
    return run


def _trainings(folder: Path, tally: Tally, count: int, chance: random.Random) -> Iterator[None]:
    """Kill a training until it has come to its end, then begin another, until the count is full."""
    whole = folder / "whole"
    reference = children.run(_train, [tally.task, whole], _SECONDS)
    if reference.code != 0:
        raise ValueError(f"an uninterrupted run ended with {reference.code}: {reference.told}")
    run = folder / "run"
    while tally.kills < count:
        # Some moments after its end too, so that the last writes are among what is hit.
        ending = children.run(_train, [tally.task, run], chance.uniform(0, 1.1 * reference.seconds))
        told = [item for item in ending.told if isinstance(item, tuple)]
        if ending.code is None:
            tally.kills += 1
            tally.faults += lost(run, told, tally)
        elif ending.code == 0:
            tally.runs += 1
            tally.faults += differences(whole, run)
            shutil.rmtree(run)
        else:
            tally.faults.append(f"a run ended with {ending.code}: {ending.told}")
            shutil.rmtree(run, ignore_errors=True)
        yield
    if run.exists():
        ending = children.run(_train, [tally.task, run], _SECONDS)
        tally.runs += 1
        tally.faults += differences(whole, run) if ending.code == 0 else [f"{ending}"]


def _train(tell: Callable[[Any], None], task: str, run: Path) -> None:
    """Begin a run, or go on with the one in the folder."""
    torch.set_num_threads(1)
    volume, labels = synthetic_em((6, 80, 96), seed=0)
    image = open_source(volume, axes="ZYX", name="volume")
    resume = (run / "run.json").exists()
    events: Iterator[Event]
    if task == "pretraining":
        config = PretrainConfig(**_COMMON, memory_share=1e-6)
        events = pretrain([image], config, run, resume=resume)
    else:
        painted = open_source(np.minimum(labels, 2), axes="ZYX", name="labels")
        events = finetune([(image, painted)], FinetuneConfig(**_COMMON), run, resume=resume)
    try:
        for event in events:
            if isinstance(event, CheckpointSaved):
                tell(("saved", event.step))
            if isinstance(event, RunFinished):
                tell(("finished", event.step))
    except AffmaeError as error:
        tell(f"{type(error).__name__}: {error}")
        raise


def lost(run: Path, told: list[tuple[str, int]], tally: Tally) -> Iterator[str]:
    """Compare what a killed run had told with what is on disk."""
    saved = [step for what, step in told if what == "saved"]
    steps = list_checkpoints(run / "checkpoints")
    if not (run / "run.json").exists():
        tally.before_record += 1
    if saved and (not steps or steps[-1] < saved[-1]):
        yield f"the checkpoint of step {saved[-1]} was told, and there are {steps}"
    try:
        made = [line["step"] for line in read_metrics(run) if line["event"] == "step"]
        for step in steps:
            RunState.read(checkpoint_path(run / "checkpoints", step))
        if steps:
            read_tensors(checkpoint_path(run / "checkpoints", steps[-1]) / "model.safetensors")
    except CheckpointError as error:
        yield f"a killed run cannot be read: {error}"
        return
    tally.lost = max(tally.lost, max(made, default=0) - (steps[-1] if steps else 0))


def differences(whole: Path, run: Path) -> Iterator[str]:
    """Compare a run that was killed and resumed with an uninterrupted one, bit for bit."""
    for name in ("model.safetensors", f"checkpoints/step_{STEPS:08d}/optimizer.safetensors"):
        one, other = read_tensors(whole / name), read_tensors(run / name)
        if one.keys() != other.keys():
            yield f"{name} holds other tensors"
        elif differing := [key for key in one if not torch.equal(one[key], other[key])]:
            yield f"{name} differs from that of an uninterrupted run in {differing[:3]}"
    metrics = [
        [line for line in read_metrics(path) if line["event"] not in _TIMED]
        for path in (whole, run)
    ]
    if metrics[0] != metrics[1]:
        yield "the measurements differ from those of an uninterrupted run"
    left = [path.name for path in run.rglob(".*") if path.name != ".lock"]
    if left:
        yield f"remains of killed writes are left: {left}"


def _segmentings(folder: Path, tally: Tally, count: int, chance: random.Random) -> Iterator[None]:
    """Kill the segmenting of a stack until its result is there, then begin another."""
    model = finished_run(folder)
    image = folder / "image.tif"
    tifffile.imwrite(image, synthetic_em((_PLANES, 96, 128), seed=1)[0])
    whole = folder / "whole" / "image.tif"
    reference = children.run(_segment, [image, model, whole.parent], _SECONDS)
    if reference.code != 0:
        raise ValueError(f"an uninterrupted run ended with {reference.code}: {reference.told}")
    expected = tifffile.imread(whole)
    out = folder / "out"
    while tally.kills < count:
        moment = chance.uniform(0, 1.1 * reference.seconds)
        ending = children.run(_segment, [image, model, out], moment)
        result = out / "image.tif"
        if ending.code is None:
            tally.kills += 1
            tally.before_record += not result.exists()
        elif ending.code:
            tally.faults.append(f"a run ended with {ending.code}: {ending.told}")
        elif not result.exists():
            tally.faults.append("a run ended without its result")
        if result.exists():
            tally.runs += 1
            if not np.array_equal(tifffile.imread(result), expected):
                tally.faults.append("a result is not that of an uninterrupted run")
            ending = children.run(_segment, [image, model, out], _SECONDS)  # which skips it
            left = [path.name for path in out.iterdir() if path != result]
            if ending.code or left:
                tally.faults.append(f"beside a result are left: {left}, {ending}")
            shutil.rmtree(out)
        yield


def _segment(tell: Callable[[Any], None], image: Path, model: Path, out: Path) -> None:
    """Segment, unless the result is there."""
    torch.set_num_threads(1)
    try:
        run_segment(
            [image],
            model,
            out,
            {"device": "cpu"},
            reading=Reading(),
            overwrite=True,
            skip_existing=True,
            console=Terminal(stderr=True),
        )
    except AffmaeError as error:
        tell(f"{type(error).__name__}: {error}")
        raise


def table(tallies: list[Tally]) -> str:
    """List what came of the kills, as a Markdown table."""
    head = (
        "task",
        "kills",
        "before its first record or result",
        "most steps lost",
        "came to their end",
        "faults",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [
        f"| {tally.task} | {tally.kills} | {tally.before_record} | {tally.lost} | {tally.runs} | "
        f"{len(tally.faults)} |"
        for tally in tallies
    ]
    return "\n".join(lines)
