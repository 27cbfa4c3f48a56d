"""The blocks that planes are cut into, so that any plane fits the pool piece by piece."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.normalization.normalization import NormalizedSource
from napari_affmae.errors import DataError

_LARGEST_SIDE = 2048
_CROPS_PER_SIDE = 4


@dataclass(frozen=True)
class Block:
    """A part of a plane that lies in the pool as one piece.

    Attributes
    ----------
    number : int
        Its number in the grid.
    source, plane : int
        Which plane it is a part of.
    rows, columns : slice
        What is read of the plane.
    starts : (int, int)
        How many rows and columns a crop can start at. The first is the block's
        own first; where the plane is smaller than the crop, the last is.
    weight : float
        Pixels of the plane that it stands for.
    """

    number: int
    source: int
    plane: int
    rows: slice
    columns: slice
    starts: tuple[int, int]
    weight: float


class BlockGrid:
    """All blocks of the planes that crops are drawn from.

    A plane of up to 2048 pixels a side, or four crops, is one block. Larger ones
    are cut: each block holds every crop that starts within its share of the
    plane, so blocks overlap by a crop.

    Parameters
    ----------
    sources : sequence of NormalizedSource
        All with the same channels.
    crop : int
        Side of a crop, pixels.
    planes : sequence of sequence of int, optional
        For each source the planes to draw from; all by default.

    Raises
    ------
    DataError
        If there is no source, or their channels differ.
    ValueError
        If `planes` does not fit the sources.
    """

    def __init__(
        self,
        sources: Sequence[NormalizedSource],
        crop: int,
        planes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.sources = list(sources)
        self.crop = crop
        self.planes = _chosen_planes(self.sources, planes)
        self.n_channels = _common_channels(self.sources)
        side = max(_LARGEST_SIDE, _CROPS_PER_SIDE * crop)
        self._rows = [_parts(source.height, crop, side) for source in self.sources]
        self._columns = [_parts(source.width, crop, side) for source in self.sources]
        self._per_plane = np.array(
            [len(r) * len(c) for r, c in zip(self._rows, self._columns, strict=True)],
            dtype=np.int64,
        )
        counts = self._per_plane * [len(chosen) for chosen in self.planes]
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Block:
        source = int(np.searchsorted(self._ends, number, side="right"))
        first = int(self._ends[source - 1]) if source else 0
        plane, part = divmod(number - first, int(self._per_plane[source]))
        rows, columns = self._rows[source], self._columns[source]
        row, column = rows[part // len(columns)], columns[part % len(columns)]
        area = self.sources[source].height * self.sources[source].width
        return Block(
            number=number,
            source=source,
            plane=int(self.planes[source][plane]),
            rows=row.read,
            columns=column.read,
            starts=(row.starts, column.starts),
            weight=area * row.share * column.share,
        )

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Pixels of each block, by its number, int64."""
        counts = []
        for rows, columns, planes in zip(self._rows, self._columns, self.planes, strict=True):
            areas = np.outer([part.length for part in rows], [part.length for part in columns])
            counts.append(np.tile(areas.reshape(-1), len(planes)))
        return np.concatenate(counts).astype(np.int64)

    def sources_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the sources that blocks (B,) are parts of, (B,) int64."""
        return np.searchsorted(self._ends, numbers, side="right")

    def of_plane(self, source: int, plane: int) -> range:
        """Return the numbers of a plane's blocks, row by row.

        Raises
        ------
        ValueError
            If crops are not drawn from this plane.
        """
        (found,) = np.nonzero(self.planes[source] == plane)
        if not found.size:
            raise ValueError(f"plane {plane} of source {source} is not drawn from")
        before = int(self._ends[source - 1]) if source else 0
        count = int(self._per_plane[source])
        first = before + int(found[0]) * count
        return range(first, first + count)

    def pick(self, draws: NDArray[np.float64], without: Collection[int] = ()) -> NDArray[np.int64]:
        """Choose blocks by the pixels that they stand for.

        Parameters
        ----------
        draws : ndarray, (B,), float64
            Random numbers from 0 to below 1.
        without : collection of int
            Numbers of sources that are left out.

        Returns
        -------
        ndarray, (B,), int64
            Numbers of blocks.

        Raises
        ------
        DataError
            If there is nothing to choose from.
        """
        counts = np.array([len(chosen) for chosen in self.planes])
        areas = self._areas(without)
        ends = np.cumsum(areas)
        if not ends[-1]:
            raise DataError("there is no image to draw crops from")
        places = draws * ends[-1]
        source = np.searchsorted(ends, places, side="right")
        within = (places - ends[source] + areas[source]) / areas[source]
        blocks = self._per_plane[source] * counts[source]
        place = np.minimum((within * blocks).astype(np.int64), blocks - 1)
        chosen: NDArray[np.int64] = self._ends[source] - blocks + place
        return chosen

    def _areas(self, without: Collection[int]) -> NDArray[np.float64]:
        """Count the pixels that the blocks of each source stand for."""
        areas = [
            len(chosen) * source.height * source.width
            for source, chosen in zip(self.sources, self.planes, strict=True)
        ]
        of_sources = np.array(areas, dtype=float)
        of_sources[list(without)] = 0
        return of_sources


@dataclass(frozen=True)
class _Part:
    """Part of an axis: what is read, how many crops start in it, its share of the axis."""

    read: slice
    starts: int
    share: float

    @property
    def length(self) -> int:
        """Pixels that are read."""
        return int(self.read.stop - self.read.start)


@cache  # thousands of images have the same sizes
def _parts(size: int, crop: int, side: int) -> tuple[_Part, ...]:
    """Cut an axis so that every crop lies within a part of at most `side` pixels."""
    if size <= side:
        return (_Part(slice(0, size), abs(size - crop) + 1, 1.0),)
    starts = size - crop + 1
    count = -(-starts // (side - crop + 1))
    edges = np.linspace(0, starts, count + 1).round().astype(int).tolist()
    return tuple(_Part(slice(a, b - 1 + crop), b - a, (b - a) / starts) for a, b in pairwise(edges))


def _chosen_planes(
    sources: Sequence[NormalizedSource], planes: Sequence[Sequence[int]] | None
) -> list[NDArray[np.int64]]:
    if planes is None:
        return [np.arange(source.n_planes) for source in sources]
    if len(planes) != len(sources):
        raise ValueError(f"planes are given for {len(planes)} of {len(sources)} sources")
    chosen = [np.asarray(list(numbers), dtype=np.int64) for numbers in planes]
    for source, numbers in zip(sources, chosen, strict=True):
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < source.n_planes):
            raise ValueError(f"planes {numbers.tolist()} of a source with {source.n_planes}")
    return chosen


def _common_channels(sources: Sequence[NormalizedSource]) -> int:
    counts = {source.n_channels: source.name for source in sources}
    if not counts:
        raise DataError("there is no image to draw crops from")
    if len(counts) > 1:
        listing = ", ".join(f"{name} has {count}" for count, name in sorted(counts.items()))
        raise DataError(f"images differ in channels: {listing}; choose channels, e.g. the first")
    return next(iter(counts))
