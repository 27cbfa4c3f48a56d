"""How much of the network's speed a training run uses, on one GPU.

For each case, in one process: the network alone (a recorded step of forward and
backward pass, clipping and optimiser, on a batch that lies on the GPU), and the
whole run (reading, cutting, masks, events, validation, previews, checkpoints).
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import tifffile
import torch
import zarr
from environment import RESULTS, WIDTH, describe, write_csv
from numpy.typing import NDArray
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from affmae_kernels import CropPlan
from napari_affmae.config import AugmentationConfig, FinetuneConfig, PretrainConfig, TrainingConfig
from napari_affmae.data import (
    ImageSource,
    LabelledPair,
    default_classes,
    find_sources,
    normalize_sources,
    open_source,
)
from napari_affmae.engine import finetune, pretrain
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.events import Event, PoolFilled, RunStarted, StepDone
from napari_affmae.engine.store.starting_weights import Origin
from napari_affmae.engine.training.finetuning import Finetuning
from napari_affmae.engine.training.image_memory import plan_pool
from napari_affmae.engine.training.labelled_data import Labelled
from napari_affmae.engine.training.networks import starting_segmenter
from napari_affmae.engine.training.pretraining import Pretraining
from napari_affmae.engine.training.steps.batch import plan_batch
from napari_affmae.engine.training.steps.stepper import Stepper
from napari_affmae.engine.training.steps.task import Task
from napari_affmae.model import AFFMAE, preset

SIDE = 1024
CLASSES = default_classes(range(4))


@dataclass(frozen=True)
class Case:
    """A run, the share of the network's speed that it should reach, and crops a second."""

    name: str
    config: TrainingConfig
    share: float
    crops: float | None = None
    images: str = "array"


def pretraining(size: str, crop: int, batch: int) -> PretrainConfig:
    """Make the settings of a pretraining by default, but for its size."""
    return PretrainConfig(preset=size, crop=crop, batch=batch, minutes=1, device="cuda")


def cases() -> list[Case]:
    """List what is measured."""
    first = pretraining("small", 256, 64)
    everything = AugmentationConfig(affine=1, elastic=1, intensity=1, noise=1)
    labelled = FinetuneConfig(
        preset="small", crop=256, batch=16, minutes=1, device="cuda", augmentation=everything
    )
    return [
        Case("pretrain small 256 px, batch 64", first, 0.9, 3000),
        Case("pretrain small 512 px, batch 16", pretraining("small", 512, 16), 0.9, 850),
        Case("pretrain small 1024 px, batch 8", pretraining("small", 1024, 8), 0.9, 245),
        Case("pretrain nano 256 px, batch 128", pretraining("nano", 256, 128), 0.9, 8000),
        Case("fine-tune small 256 px, batch 16", labelled, 0.9),
        Case("data 8 times the pool, deflate TIFF", first, 0.85, None, "tiff"),
        Case("data 8 times the pool, zarr", first, 0.85, None, "zarr"),
    ]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="length of each run")
    parser.add_argument("--planes", type=int, default=1500, help="planes of the rolling data")
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(cases()))))
    parser.add_argument("--data", type=Path, help="folder of images; synthetic noise without it")
    parser.add_argument("--out", type=Path, default=RESULTS / "throughput.csv")
    arguments = parser.parse_args()
    environment = describe(torch.device("cuda"))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        stock = Stock(Path(folder), arguments.data, arguments.planes)
        for number in arguments.cases:
            case = cases()[number]
            rows.append(measure(case, stock, arguments.minutes))
            print(rows[-1], flush=True)
            write_csv(arguments.out, [row | environment for row in rows])
    Console(width=WIDTH).print(table_of(rows))


class Stock:
    """Planes of image: in memory, and in the files that are read again and again."""

    def __init__(self, folder: Path, data: Path | None, planes: int) -> None:
        self.folder = folder
        self.planes = planes
        self._real = [] if data is None else list(_planes_of(data))
        self._rng = np.random.default_rng(0)

    def plane(self) -> NDArray[np.uint8]:
        """Make a plane: a random part of a real one, or noise."""
        if not self._real:
            return self._rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        plane = self._real[self._rng.integers(len(self._real))]
        rows, columns = (
            np.abs(np.arange(SIDE) + self._rng.integers(size) - size + 1) % size
            for size in plane.shape
        )
        return plane[rows[:, None], columns]

    def sources(self, kind: str) -> list[ImageSource]:
        """Open planes of one kind of storage, which are made when first asked for."""
        if kind == "array":
            stack = np.stack([self.plane() for _ in range(64)])
            return [open_source(stack, axes="ZYX", name="stack")]
        target = self.folder / kind
        if not target.exists():
            self._write(kind, target)
        if kind == "zarr":
            return [open_source(target / "stack.zarr")]
        return list(find_sources([target]).sources)

    def _write(self, kind: str, target: Path) -> None:
        target.mkdir()
        few = [self.plane() for _ in range(100)]
        planes = (np.roll(few[i % 100], i, axis=0) for i in range(self.planes))
        if kind == "tiff":
            for number, plane in enumerate(planes):
                tifffile.imwrite(target / f"{number:05d}.tif", plane, compression="zlib")
            return
        shape, chunks = (self.planes, SIDE, SIDE), (1, 512, 512)
        array = zarr.create_array(
            target / "stack.zarr", shape=shape, chunks=chunks, dtype="uint8",
            dimension_names=("z", "y", "x"),
        )  # fmt: skip
        for number, plane in enumerate(planes):
            array[number] = plane


def _planes_of(folder: Path) -> Iterator[NDArray[np.uint8]]:
    for source in find_sources([folder]).sources:
        if source.dtype == np.uint8:
            for plane in range(0, source.n_planes, 8):
                yield source.read(plane)[0]


def measure(case: Case, stock: Stock, minutes: float) -> dict[str, object]:
    """Time the network alone and the whole run of a case."""
    sources = stock.sources(case.images)
    config = case.config
    if case.images != "array":
        free = plan_device("cuda").free_memory
        share = stock.planes * SIDE**2 / 8 / free
        config = config.model_copy(update={"memory_share": share})
    alone = time_network(config, sources[:1])
    # Kernels of training and of validation are compiled once on a machine, not in each run.
    few = config.model_copy(update={"minutes": None, "steps": 12})
    time_run(few, sources, stock.folder / "run")
    run = time_run(config.model_copy(update={"minutes": minutes}), sources, stock.folder / "run")
    return {
        "case": case.name,
        "network, crops/s": round(alone),
        "run, crops/s": round(run.crops_per_second),
        "share": round(run.crops_per_second / alone, 3),
        "at least": case.share,
        "at least crops/s": case.crops or "",
        "waited": f"{run.waited:.1%}",
        "s to the first step": round(run.first, 1),
        "pool MB": round(run.pool / 2**20),
        "beside steps, s": ", ".join(f"{name} {value:.1f}" for name, value in run.beside.items()),
        "limits": limit_of(run, alone),
    }


def limit_of(run: "Timing", alone: float) -> str:
    """Name what keeps a run below the network's speed."""
    lost = 1 - run.crops_per_second / alone
    if lost < 0.02:
        return "network"
    return "reading" if run.waited > lost / 2 else "host"


def time_network(config: TrainingConfig, sources: Sequence[ImageSource]) -> float:
    """Time recorded steps on a batch that is cut already; return crops a second."""
    with steps_alone(config, sources) as (make, crops):
        make(5)
        started, steps = time.perf_counter(), 0
        while (seconds := time.perf_counter() - started) < 5 or not steps:
            make(10)
            steps += 10
    return steps * crops / seconds


@contextmanager
def steps_alone(
    config: TrainingConfig, sources: Sequence[ImageSource]
) -> Iterator[tuple[Callable[[int], None], int]]:
    """Give what makes recorded steps on a batch that is cut already, and the crops of a step.

    It makes as many as it is told, and waits for them.
    """
    with closing(make_task(config, sources)) as task:
        for _ in task.crops.advance(0):
            pass
        plan = task.crops.plan(0, task.batch.batch)
        batch = task.cut(CropPlan(*(field.cuda() for field in plan)))
        task.cut = lambda _: batch  # type: ignore[method-assign]
        stepper = Stepper(task, Runtime(plan_device("cuda")))
        made = count(1)

        def make(number: int) -> None:
            launched = None
            for step in islice(made, number):
                launched = stepper.launch(plan, step, 1e-4)
            assert launched is not None
            launched.read()

        yield make, task.batch.batch
        stepper.release()


def make_task(config: TrainingConfig, sources: Sequence[ImageSource]) -> Task:
    """Make the task of a run, as the engine does."""
    plan = plan_device("cuda")
    place = plan_pool(plan, config.memory_share, None)
    normalized = normalize_sources(sources, config.normalization)
    if isinstance(config, PretrainConfig):
        batch = plan_batch(config.batch, config.crop, config.preset, "pretrain", plan)
        return Pretraining(config, AFFMAE(preset(config.preset)), normalized, batch, place)
    assert isinstance(config, FinetuneConfig)
    batch = plan_batch(config.batch, config.crop, config.preset, "finetune", plan)
    pairs = [LabelledPair(normalized[0], labels_of(sources[0]))]
    planes = [list(range(sources[0].n_planes))]
    network, start = starting_segmenter(config, len(CLASSES), Origin(None))
    data = Labelled(pairs, planes, [[]], CLASSES)
    return Finetuning(config, network, data, start, batch, place)


def labels_of(source: ImageSource) -> ImageSource:
    """Make labels in blobs of four classes."""
    rng = np.random.default_rng(1)
    small = rng.integers(0, 4, (source.n_planes, SIDE // 64, SIDE // 64), dtype=np.uint8)
    labels = small.repeat(64, axis=1).repeat(64, axis=2)
    return open_source(labels, axes="ZYX", name="labels")


@dataclass(frozen=True)
class Timing:
    """What was measured of a run: seconds to the first step, and of what else there was."""

    first: float
    crops_per_second: float
    waited: float
    pool: int
    beside: dict[str, float]


def time_run(config: TrainingConfig, sources: Sequence[ImageSource], folder: Path) -> Timing:
    """Make a run and time it from its first step to its last, all that comes between included."""
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    first: float | None = None
    steps = batch = pool = 0
    waited = 0.0
    beside: dict[str, float] = {}
    before = started
    for event in run_of(config, sources, folder):
        now = time.perf_counter()
        if first is not None and not isinstance(event, StepDone | PoolFilled):
            name = type(event).__name__
            beside[name] = beside.get(name, 0.0) + now - before
        before = now
        match event:
            case RunStarted():
                batch = event.batch
            case PoolFilled():
                pool = max(pool, event.held)
            case StepDone():
                last = time.perf_counter()
                if first is None:
                    first = last
                else:
                    steps += 1
                    waited += event.seconds_waited
    assert first is not None
    seconds = last - first
    return Timing(first - started, steps * batch / seconds, waited / seconds, pool, beside)


def run_of(config: TrainingConfig, sources: Sequence[ImageSource], folder: Path) -> Iterator[Event]:
    """Start the run of a configuration."""
    if isinstance(config, PretrainConfig):
        return pretrain(sources, config, folder)
    assert isinstance(config, FinetuneConfig)
    settings = config.model_copy(update={"classes": CLASSES})
    return finetune([(sources[0], labels_of(sources[0]))], settings, folder)


def table_of(rows: Sequence[dict[str, object]]) -> Table:
    """Lay the rows out as a Markdown table."""
    table = Table(box=MARKDOWN)
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "case" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


if __name__ == "__main__":
    main()
