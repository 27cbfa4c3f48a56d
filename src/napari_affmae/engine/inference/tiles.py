"""Covers a plane with overlapping tiles and blends their predictions.

MONAI's sliding window inferer takes and returns whole-plane tensors: with four
classes, 20,000 x 20,000 pixels would be 6.4 GB of float32. Here tiles are read when
they are needed, and rows are finished as soon as no later tile touches them, so that
memory holds one row of tiles.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Plane(Protocol):
    """A plane that can be read in parts."""

    def __call__(self, rows: slice, columns: slice) -> Floats:
        """Read (channels, rows, columns)."""
        ...


class Predict(Protocol):
    """A network that gives class probabilities."""

    def __call__(self, tiles: Floats) -> Floats:
        """Map (count, channels, tile, tile) to (count, classes, tile, tile)."""
        ...


@dataclass(frozen=True)
class Band:
    """Progress on a plane: the number of tiles, and rows that they have finished.

    Attributes
    ----------
    done, total : int
        Tiles of the plane.
    start : int
        First row of the band.
    probabilities : ndarray or None
        (classes, rows, width) float32 that sum to 1; None between bands.
    """

    done: int
    total: int
    start: int = 0
    probabilities: Floats | None = None


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

    @property
    def padded_width(self) -> int:
        """Width of the plane, or of a tile where that is wider."""
        return max(self.width, self.tile)

    def _starts(self, size: int) -> list[int]:
        last = max(0, size - self.tile)
        stride = max(1, round(self.tile * (1 - self.overlap)))
        return [*range(0, last, stride), last]


def predict_plane(
    read: Plane, predict: Predict, grid: Grid, classes: int, batch: int
) -> Generator[Band, None, None]:
    """Predict a plane tile by tile.

    Probabilities of overlapping tiles are averaged with weights that fall to
    nearly nothing at a tile's border (a squared sine along either axis), so
    that no seam shows.

    Parameters
    ----------
    read : Plane
        The plane.
    predict : Predict
        The network.
    grid : Grid
        Where the tiles lie.
    classes : int
        Number of classes.
    batch : int
        Tiles of one forward pass; they come from one row of tiles.

    Yields
    ------
    Band
        One after each batch of tiles; the bands that carry probabilities follow
        each other without gap or overlap from the first row to the last.
    """
    tile = grid.tile
    window = tile_window(tile)
    column_weights = _total(window, grid.columns, grid.padded_width)
    row_weights = _total(window, grid.rows, max(grid.height, tile))
    sums = np.zeros((classes, tile, grid.padded_width), np.float32)
    # Torch adds in one pass and on several threads; with NumPy, a GPU would have to wait.
    added, both = torch.from_numpy(sums), torch.from_numpy(np.outer(window, window))
    total = len(grid.rows) * len(grid.columns)
    done = 0
    for row, following in zip(grid.rows, [*grid.rows[1:], grid.height], strict=True):
        for columns in _batches(grid.columns, batch):
            tiles = np.stack([read_tile(read, row, column, tile) for column in columns])
            for column, values in zip(columns, predict(tiles), strict=True):
                added[:, :, column : column + tile].addcmul_(torch.from_numpy(values), both)
            done += len(columns)
            if column != grid.columns[-1]:
                yield Band(done, total)
        finished = following - row
        weights = np.outer(row_weights[row:following], column_weights[: grid.width])
        yield Band(done, total, row, sums[:, :finished, : grid.width] / weights)
        sums[:, : tile - finished] = sums[:, finished:].copy()
        sums[:, tile - finished :] = 0


def tile_window(tile: int) -> Floats:
    """Weights along one axis of a tile, above 0 everywhere."""
    return np.sin(np.pi * (np.arange(tile, dtype=np.float32) + 0.5) / tile) ** 2


def _total(window: Floats, starts: Iterable[int], size: int) -> Floats:
    total = np.zeros(size, np.float32)
    for start in starts:
        total[start : start + len(window)] += window
    return total


def _batches(values: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def read_tile(read: Plane, row: int, column: int, tile: int) -> Floats:
    """Read a tile, mirrored where it reaches beyond the plane."""
    part = read(slice(row, row + tile), slice(column, column + tile))
    missing = [(0, tile - size) for size in part.shape[1:]]
    return np.pad(part, [(0, 0), *missing], mode="reflect")
