"""Averages predictions on the planes of a volume with those on planes that cross them.

Each direction is a result of its own, block by block, in a hidden folder; when all are complete
they are averaged, block by block again.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from napari_affmae.data import ImageSource, NormalizedSource
from napari_affmae.data.sources.turned import TurnedSource
from napari_affmae.engine.compute.timing import Stopwatch
from napari_affmae.engine.events import BlockDone, Notice, TilesDone
from napari_affmae.engine.inference.blending import Wanted, class_values
from napari_affmae.engine.results.plan import DEFAULT_SIZES, BlockSizes, Box
from napari_affmae.engine.results.volume import Parts, Volume
from napari_affmae.engine.volumes.block_order import BlockOrder
from napari_affmae.engine.volumes.blocks import BlockWork, Task
from napari_affmae.engine.volumes.executor import (
    Executor,
    Threads,
    completed_blocks,
    compute_blocks,
)

# Blocks of all directions overlap in cubes, of which no chunk is read for a part alone.
_CUBE = 256
_ISOTROPIC = 1.25


@dataclass(frozen=True)
class Direction:
    """A side from which a volume is seen.

    Attributes
    ----------
    name : str
        Of its folder.
    axes : tuple of int
        Which of the volume's axes (planes, rows, columns) its own are.
    source : NormalizedSource
        The volume from there.
    """

    name: str
    axes: tuple[int, int, int]
    source: NormalizedSource


def directions_of(volume: NormalizedSource) -> list[Direction]:
    """Return the three sides of a volume; all are normalised by the same numbers.

    Raises
    ------
    DataError
        If it is no single volume.
    """

    def turned(source: TurnedSource) -> NormalizedSource:
        known = {source.fingerprint(): volume.statistics}
        return NormalizedSource(source, volume.config, known)

    return [
        Direction("xy", (0, 1, 2), volume),
        Direction("xz", (1, 0, 2), turned(TurnedSource(volume.source, "Y"))),
        Direction("yz", (2, 0, 1), turned(TurnedSource(volume.source, "X"))),
    ]


def cube_sizes(sizes: BlockSizes) -> BlockSizes:
    """Return how the average is divided, where nothing else is asked for."""
    return BlockSizes(chunk=_CUBE, side=_CUBE, depth=_CUBE) if sizes == DEFAULT_SIZES else sizes


def side_sizes(sizes: BlockSizes) -> BlockSizes:
    """Return how the result of each direction is divided: its chunks fit the average's."""
    return BlockSizes(chunk=_CUBE) if sizes == DEFAULT_SIZES else sizes


def note_unequal_sizes(source: ImageSource) -> Iterator[Notice]:
    """Warn of planes that are not as far apart as pixels, which look otherwise from the sides."""
    rows, apart = (source.pixel_size or (None, None))[0], source.plane_distance
    if rows and apart and max(rows / apart, apart / rows) > _ISOTROPIC:
        yield Notice(
            f"planes are {apart:g} nm apart and pixels {rows:g} nm: seen from the sides it looks "
            "unlike what the network was trained on; predict along one direction, or resample it",
            source=source.name,
        )


def compute_directions(
    works: Sequence[BlockWork], predicted: Sequence[Volume], executor: Executor
) -> Generator[TilesDone, None, None]:
    """Compute what is missing of the results of all directions, one after the other.

    Parameters
    ----------
    works : sequence of BlockWork
        The computation of each.
    predicted : sequence of Volume
        Their results.
    executor : Executor
        Where they are computed.

    Yields
    ------
    TilesDone
        Progress of all directions together.
    """
    missing = [
        sum(map(work.tiles, volume.ledger.missing(range(volume.plan.first(volume.plan.levels)))))
        for work, volume in zip(works, predicted, strict=True)
    ]
    before, watch = 0, Stopwatch()
    watch.start()
    for work, volume, count in zip(works, predicted, missing, strict=True):
        with closing(compute_blocks(work, volume, executor)) as events:
            for event in events:
                if not isinstance(event, TilesDone):
                    continue
                watch.stop()
                done = before + event.done
                yield TilesDone(done, sum(missing), watch.elapsed / done * (sum(missing) - done))
                watch.start()
        before += count


def average(
    directions: Sequence[Direction], predicted: Sequence[Volume], target: Volume
) -> Generator[BlockDone, None, None]:
    """Average complete predictions, in threads here: it takes no network.

    Parameters
    ----------
    directions : sequence of Direction
        The sides.
    predicted : sequence of Volume
        Their results.
    target : Volume
        The average.

    Yields
    ------
    BlockDone
        One after each block.
    """
    threads, total = Threads(2), target.plan.first(target.plan.levels)
    started = partial(threads.starting, AverageWork(directions, predicted, target))
    # Two cubes in memory at a time.
    with closing(completed_blocks(target, started, 2, BlockOrder(target, 1))) as completed:
        for number in completed:
            if number is not None:
                yield BlockDone(*target.box(number), target.ledger.done, total)


class AverageWork:
    """Averages the predictions of all directions; several threads may call it.

    Parameters
    ----------
    directions : sequence of Direction
        The sides, in the order in which they are added.
    predicted : sequence of Volume
        Their complete results, with probabilities.
    target : Volume
        The average.
    """

    def __init__(
        self, directions: Sequence[Direction], predicted: Sequence[Volume], target: Volume
    ) -> None:
        self._sides = list(zip(directions, predicted, strict=True))
        self._target = target
        self._wanted = Wanted(class_values(target.plan.classes), target.plan.probabilities)

    def __call__(self, numbers: Sequence[int]) -> Task:
        """Return what averages blocks, writes them, and waits until they are on the disk."""
        return partial(self._write, numbers)

    def _write(self, numbers: Sequence[int], on_tile: Callable[[], None]) -> None:
        level, box = self._target.box(numbers[0])
        self._target.write_chain(numbers, None if level else self._average(box, on_tile))

    def _average(self, box: Box, on_tile: Callable[[], None]) -> Parts:
        """Add class by class, so that one class at a time is in memory."""
        plan = self._target.plan
        shape = tuple(part.stop - part.start for part in box)
        best, labels = np.full(shape, -1, np.float32), np.empty(shape, plan.label_type)
        probabilities = None
        if plan.probabilities is not None:
            probabilities = np.empty(
                plan.with_classes(shape, len(self._wanted.values)), plan.probabilities
            )
        for number, value in enumerate(self._wanted.values):
            on_tile()
            mean = np.zeros(shape, np.float32)
            for side, volume in self._sides:
                seen = tuple(box[axis] for axis in side.axes)
                mean += volume.read_class(0, seen, number).transpose(np.argsort(side.axes))
            mean /= len(self._sides)
            more = mean > best
            labels[more] = value
            np.copyto(best, mean, where=more)
            chances = self._wanted.stored(torch.from_numpy(mean))
            if probabilities is not None and chances is not None:
                place = plan.with_classes((slice(None),) * len(shape), number)
                probabilities[place] = chances.numpy()
        return labels, probabilities
