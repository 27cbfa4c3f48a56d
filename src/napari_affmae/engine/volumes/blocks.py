"""Computes the blocks of a volume of results."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from napari_affmae.config import SegmentConfig
from napari_affmae.data import NormalizedSource
from napari_affmae.data.sources.source import shifted
from napari_affmae.engine.inference.blending import Wanted, class_values
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.inference.tiles import Region
from napari_affmae.engine.results.origin import Origin
from napari_affmae.engine.results.plan import Box
from napari_affmae.engine.results.tree import made_from_alone
from napari_affmae.engine.results.volume import Parts, Place, Volume
from napari_affmae.engine.volumes.line import Line, Turn

_Tell = Callable[[], None]
#: Computes blocks. It calls what it is given after each tile; what that raises ends them unwritten.
Task = Callable[[_Tell], None]


@dataclass(frozen=True)
class BlockJob:
    """All that another process needs to compute blocks of a volume; can be pickled.

    Attributes
    ----------
    source : NormalizedSource
        The image, with the numbers that normalise it.
    model : Path
        The model file.
    origin : Origin
        With the fingerprint that the model must have.
    config : SegmentConfig
        Tiles, device, and the precision of the plan.
    place : Place
        The volume.
    """

    source: NormalizedSource
    model: Path
    origin: Origin
    config: SegmentConfig
    place: Place


class BlockWork:
    """The computation of a volume's blocks, each by itself; several threads may call it.

    Parameters
    ----------
    job : BlockJob
        Image and result.
    predictor : Predictor
        The network of the job's model.
    volume : Volume
        The volume at the job's place.

    Attributes
    ----------
    job : BlockJob
        What is computed.
    """

    def __init__(self, job: BlockJob, predictor: Predictor, volume: Volume) -> None:
        self.job = job
        self._predictor = predictor
        self._source = job.source
        self._volume = volume
        self._wanted = Wanted(class_values(volume.plan.classes), volume.plan.probabilities)
        # The tiles of one block go to the device after those of another, while more are read
        # or written. The next block follows before the last tiles have come back, so that the
        # device does not wait in between.
        self._line = Line()

    @property
    def at_once(self) -> int:
        """Blocks to compute together: as many planes, where each is a block, as fill a batch."""
        if self._volume.plan.blocks(0).counts[-2:] != (1, 1):
            return 1
        return max(1, self._predictor.batch // self.tiles(0))

    @property
    def nbytes(self) -> int:
        """Bytes of the results of what is computed together."""
        plan = self._volume.plan
        pixel = self._wanted.values.itemsize
        if plan.probabilities is not None:
            pixel += len(plan.classes) * np.dtype(plan.probabilities).itemsize
        return self.at_once * math.prod(plan.blocks(0).block) * pixel

    def tiles(self, number: int) -> int:
        """Count the tiles of a block; those of the smaller levels have none."""
        level, box = self._volume.box(number)
        if level:
            return 0
        return self._predictor.grid_of(self._source).count(self._region([box]))

    def __call__(self, numbers: Sequence[int]) -> Task:
        """Return the computation of blocks, whose turn comes after those asked for before.

        It has to be called, or none that is asked for later. It writes the blocks, waits until
        they are on the disk, and raises as `Predictor.region` and `Volume.write` do.

        Parameters
        ----------
        numbers : sequence of int
            From `BlockOrder.take`. Those of one level differ in their planes alone, and
            are `at_once` at most.
        """
        found = {number: self._volume.box(number) for number in numbers}
        boxes = {number: box for number, (level, box) in found.items() if level == 0}
        if not boxes:
            return lambda _: self._volume.write_chain(numbers)
        turn = self._line.joined()
        return lambda on_tile: self._compute(numbers, boxes, turn, on_tile)

    def _compute(
        self, numbers: Sequence[int], boxes: Mapping[int, Box], turn: Turn, on_tile: _Tell
    ) -> None:
        """Predict blocks, and write each with the smaller ones that it alone decides."""
        made = self._predict(list(boxes.values()), turn, on_tile)
        for number, parts in zip(boxes, made, strict=True):
            smaller = takewhile(numbers.__contains__, made_from_alone(self._volume.plan, number))
            self._volume.write_chain([number, *smaller], parts)

    def _predict(self, boxes: Sequence[Box], turn: Turn, on_tile: _Tell) -> Iterator[Parts]:
        """Predict the blocks, then return their labels and probabilities one by one."""
        plan, region = self._volume.plan, self._region(boxes)
        with (
            turn,
            self._predictor.reader(self._source, region) as reader,
        ):
            turn.wait()
            place = {plane: index for index, plane in enumerate(region.planes)}
            size = tuple(part.stop - part.start for part in boxes[0][-2:])
            classes = len(self._wanted.values)
            labels = np.empty((len(place), *size), self._wanted.values.dtype)
            probabilities = None
            if plan.probabilities is not None:
                probabilities = np.empty((len(place), classes, *size), plan.probabilities)
            for band in self._predictor.region(reader, self._wanted, launched=turn.leave):
                if band.labels is not None:
                    rows = shifted(band.rows, -region.rows.start)
                    labels[place[band.plane], rows] = band.labels
                    if probabilities is not None:
                        probabilities[place[band.plane], :, rows] = band.probabilities
                on_tile()
        done = 0
        for box in boxes:
            lead = tuple(part.stop - part.start for part in box[:-2])
            planes = slice(done, done := done + math.prod(lead))
            chances = None
            if probabilities is not None:
                stack = probabilities[planes].reshape(*lead, classes, *size)
                chances = np.moveaxis(stack, len(lead), plan.channel_axis)
            yield labels[planes].reshape(*lead, *size), chances

    def _region(self, boxes: Sequence[Box]) -> Region:
        planes = [plane for box in boxes for plane in self._volume.plan.source_planes(box)]
        return Region(planes, *boxes[0][-2:])
