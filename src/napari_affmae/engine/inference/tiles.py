"""Where overlapping tiles lie on a plane, and what is read for them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Planes(Protocol):
    """Planes that can be read in parts."""

    def __call__(self, plane: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Read (channels, rows, columns)."""
        ...


@dataclass(frozen=True)
class Region:
    """A rectangle on some planes.

    Attributes
    ----------
    planes : sequence of int
        Numbers of the planes.
    rows, columns : slice
        The rectangle, within the plane.
    """

    planes: Sequence[int]
    rows: slice
    columns: slice


class Place(NamedTuple):
    """A tile of a plane: its first row and column."""

    plane: int
    row: int
    column: int


@dataclass(frozen=True)
class Grid:
    """Tiles over a plane: all of one size, the last ones flush with the far border.

    Attributes
    ----------
    height, width : int
        Size of the plane, pixels.
    tile : int
        Side of a tile. A plane that is smaller is mirrored to fill it, so that
        the network always sees the canvas that it was trained on.
    overlap : float
        Share of a tile that it shares with the next, 0 to below 1.
    """

    height: int
    width: int
    tile: int
    overlap: float

    @property
    def rows(self) -> list[int]:
        """First rows of the tiles, ascending."""
        return self._starts(self.height)

    @property
    def columns(self) -> list[int]:
        """First columns of the tiles, ascending."""
        return self._starts(self.width)

    def tiles_on(self, region: Region) -> tuple[list[int], list[int]]:
        """First rows and first columns of the tiles that touch a region, on each plane."""
        return self._touching(self.rows, region.rows), self._touching(self.columns, region.columns)

    def count(self, region: Region) -> int:
        """Count the tiles that touch a region."""
        rows, columns = self.tiles_on(region)
        return len(region.planes) * len(rows) * len(columns)

    def places(self, region: Region) -> Iterator[Place]:
        """Return the tiles that touch a region, plane by plane and row by row."""
        rows, columns = self.tiles_on(region)
        return (Place(*place) for place in product(region.planes, rows, columns))

    def weights(self) -> tuple[Floats, Floats]:
        """Sum the weights of all tiles in each row and in each column.

        The sum at a pixel is that of its row times that of its column.
        """
        window = tile_window(self.tile)
        along = _total(window, self.rows, max(self.height, self.tile))
        return along, _total(window, self.columns, max(self.width, self.tile))

    def _touching(self, starts: list[int], part: slice) -> list[int]:
        return [n for n in starts if n < part.stop and n + self.tile > part.start]

    def _starts(self, size: int) -> list[int]:
        last = max(0, size - self.tile)
        stride = max(1, round(self.tile * (1 - self.overlap)))
        return [*range(0, last, stride), last]


def tile_window(tile: int) -> Floats:
    """Weights along one axis of a tile, above 0 everywhere."""
    return np.sin(np.pi * (np.arange(tile, dtype=np.float32) + 0.5) / tile) ** 2


def _total(window: Floats, starts: Iterable[int], size: int) -> Floats:
    total = np.zeros(size, np.float32)
    for start in starts:
        total[start : start + len(window)] += window
    return total


def read_tile(read: Planes, place: Place, tile: int) -> NDArray[Any]:
    """Read (channels, tile, tile) pixels, mirrored where the tile reaches beyond the plane."""
    plane, row, column = place
    part = read(plane, slice(row, row + tile), slice(column, column + tile))
    if part.shape[1:] == (tile, tile):
        return part
    missing = [(0, tile - size) for size in part.shape[1:]]
    return np.pad(part, [(0, 0), *missing], mode="reflect")
