"""Computes the blocks of a volume of results."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import SegmentConfig
from napari_affmae.data import NormalizedSource
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.inference.tiles import Region
from napari_affmae.engine.results.origin import Origin
from napari_affmae.engine.results.plan import Box
from napari_affmae.engine.results.volume import Place, Volume


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
        values = np.array([item.value for item in volume.plan.classes])
        self._values = values.astype(volume.plan.label_type)

    def tiles(self, number: int) -> int:
        """Count the tiles of a block; those of the smaller levels have none."""
        level, box = self._volume.box(number)
        if level:
            return 0
        return self._predictor.grid_of(self._source).count(self._region(box))

    def __call__(self, number: int, on_tile: Callable[[], None]) -> None:
        """Compute a block, write it, and wait until it is on the disk.

        Parameters
        ----------
        number : int
            Number of the block.
        on_tile : callable
            Called after each tile; what it raises ends the block unwritten.

        Raises
        ------
        OutOfMemoryError, UnreadableFileError, UnwritableError
            As `Predictor.region` and `Volume.write`.
        """
        level, box = self._volume.box(number)
        if level:
            self._volume.shrink(level, box)
        else:
            self._volume.write(level, box, *self._predict(box, on_tile))

    def _predict(
        self, box: Box, on_tile: Callable[[], None]
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        plan, region = self._volume.plan, self._region(box)
        place = {plane: index for index, plane in enumerate(region.planes)}
        size = tuple(part.stop - part.start for part in box)
        labels = np.empty((len(place), *size[-2:]), self._values.dtype)
        probabilities = None
        if plan.probabilities is not None:
            shape = (len(place), len(self._values), *size[-2:])
            probabilities = np.empty(shape, plan.probabilities)
        for band in self._predictor.region(self._source, region):
            if band.probabilities is not None:
                start = band.start - region.rows.start
                rows = slice(start, start + band.probabilities.shape[1])
                labels[place[band.plane], rows] = self._values[band.probabilities.argmax(0)]
                if probabilities is not None:
                    part = stored(band.probabilities, probabilities.dtype)
                    probabilities[place[band.plane], :, rows] = part
            on_tile()
        if probabilities is not None:
            stack = probabilities.reshape(*size[:-2], len(self._values), *size[-2:])
            probabilities = np.moveaxis(stack, len(size) - 2, plan.channel_axis)
        return labels.reshape(size), probabilities

    def _region(self, box: Box) -> Region:
        return Region(self._volume.plan.source_planes(box), box[-2], box[-1])


def stored(probabilities: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert probabilities to the type of a file; integers have 0 to their largest."""
    if dtype.kind == "u":
        return np.rint(probabilities * np.iinfo(dtype).max).astype(dtype)
    return probabilities.astype(dtype)
