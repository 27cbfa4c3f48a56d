"""Covers a plane with overlapping tiles and blends their predictions.

MONAI's sliding window inferer takes and returns whole-plane tensors: with four
classes, 20,000 x 20,000 pixels would be 6.4 GB of float32. Here tiles are read when
they are needed, and rows are finished as soon as no later tile touches them, so that
memory holds one row of tiles.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Planes(Protocol):
    """Planes that can be read in parts."""

    def __call__(self, plane: int, rows: slice, columns: slice) -> Floats:
        """Read (channels, rows, columns)."""
        ...


class Predict(Protocol):
    """A network that gives class probabilities."""

    def __call__(self, tiles: Floats) -> Floats:
        """Map (count, channels, tile, tile) to (count, classes, tile, tile)."""
        ...


@dataclass(frozen=True)
class Band:
    """Progress on a region: the number of tiles, and rows that they have finished.

    Attributes
    ----------
    done, total : int
        Tiles of the region.
    plane : int
        The plane that the last tile lies on.
    start : int
        First row of the band, counted in the plane.
    probabilities : ndarray or None
        (classes, rows, width) float32 that sum to 1; None between bands.
    """

    done: int
    total: int
    plane: int
    start: int = 0
    probabilities: Floats | None = None


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

    def weights(self, rows: slice, columns: slice) -> Floats:
        """Sum of the weights of all tiles at each pixel of a rectangle."""
        window = tile_window(self.tile)
        along = _total(window, self.rows, max(self.height, self.tile))[rows]
        across = _total(window, self.columns, max(self.width, self.tile))[columns]
        return np.outer(along, across)

    def _touching(self, starts: list[int], part: slice) -> list[int]:
        return [n for n in starts if n < part.stop and n + self.tile > part.start]

    def _starts(self, size: int) -> list[int]:
        last = max(0, size - self.tile)
        stride = max(1, round(self.tile * (1 - self.overlap)))
        return [*range(0, last, stride), last]


def predict_region(
    read: Planes, predict: Predict, grid: Grid, region: Region, classes: int, batch: int
) -> Generator[Band, None, None]:
    """Predict a region tile by tile.

    Probabilities of overlapping tiles are averaged with weights that fall to
    nearly nothing at a tile's border (a squared sine along either axis), so
    that no seam shows. A pixel gets the same bits whatever region it is part of:
    the tiles lie where they lie on the whole plane, all that touch the region are
    computed, and each pixel's are added in the same order.

    Parameters
    ----------
    read : Planes
        The planes.
    predict : Predict
        The network.
    grid : Grid
        Where the tiles of a plane lie.
    region : Region
        What to predict.
    classes : int
        Number of classes.
    batch : int
        Tiles of one forward pass; they may come from several rows and planes.

    Yields
    ------
    Band
        One after each tile; on each plane, the bands that carry probabilities follow
        each other without gap or overlap from the region's first row to its last.
    """
    tile = grid.tile
    rows, columns = grid.tiles_on(region)
    left = columns[0]
    window = torch.from_numpy(np.outer(tile_window(tile), tile_window(tile)))
    sums = np.zeros((classes, tile, columns[-1] + tile - left), np.float32)
    # Torch adds on several threads; with NumPy, a GPU would have to wait.
    added = torch.from_numpy(sums)
    inside = slice(region.columns.start - left, region.columns.stop - left)
    places = list(product(region.planes, rows, columns))
    predicted = _predictions(read, predict, places, tile, batch)
    done, total = 0, len(places)
    for plane in region.planes:
        for row, following in zip(rows, [*rows[1:], region.rows.stop], strict=True):
            for column in columns:
                # Two steps, each rounded by itself: one that multiplies and adds is rounded
                # otherwise where a processor does both at once, which depends on the width.
                weighted = torch.from_numpy(next(predicted)) * window
                added[:, :, column - left : column - left + tile] += weighted
                done += 1
                if column != columns[-1]:
                    yield Band(done, total, plane)
            # None, where the first tiles end in the region's first rows.
            finished = slice(max(row, region.rows.start), max(following, region.rows.start))
            ready = slice(finished.start - row, finished.stop - row)
            weights = grid.weights(finished, region.columns)
            yield Band(done, total, plane, finished.start, sums[:, ready, inside] / weights)
            _scroll(sums, tile if row == rows[-1] else following - row)


def _predictions(
    read: Planes, predict: Predict, places: list[tuple[int, int, int]], tile: int, batch: int
) -> Iterator[Floats]:
    """Predict tiles at (plane, row, column), one after the other."""
    for start in range(0, len(places), batch):
        part = places[start : start + batch]
        yield from predict(np.stack([read_tile(read, *place, tile) for place in part]))


def _scroll(sums: Floats, rows: int) -> None:
    """Drop the first rows of the sums, and begin as many new ones below."""
    kept = sums.shape[1] - rows
    sums[:, :kept] = sums[:, rows:].copy()
    sums[:, kept:] = 0


def tile_window(tile: int) -> Floats:
    """Weights along one axis of a tile, above 0 everywhere."""
    return np.sin(np.pi * (np.arange(tile, dtype=np.float32) + 0.5) / tile) ** 2


def _total(window: Floats, starts: Iterable[int], size: int) -> Floats:
    total = np.zeros(size, np.float32)
    for start in starts:
        total[start : start + len(window)] += window
    return total


def read_tile(read: Planes, plane: int, row: int, column: int, tile: int) -> Floats:
    """Read a tile, mirrored where it reaches beyond the plane."""
    part = read(plane, slice(row, row + tile), slice(column, column + tile))
    missing = [(0, tile - size) for size in part.shape[1:]]
    return np.pad(part, [(0, 0), *missing], mode="reflect")
