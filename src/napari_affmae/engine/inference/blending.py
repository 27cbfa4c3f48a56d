"""Blends the predictions of overlapping tiles, on the device that made them.

MONAI's sliding window inferer takes and returns whole-plane tensors: with four
classes, 20,000 x 20,000 pixels would be 6.4 GB of float32. Here rows are finished as
soon as no later tile touches them, so that memory holds one row of tiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_affmae.config import LabelClass
from napari_affmae.engine.inference.tiles import Grid, Place, Region, tile_window

# Shares of 1 are stored as integers of 8 bits, or as what they are.
_STORED = {"uint8": torch.uint8, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Wanted:
    """What is made of class probabilities.

    Attributes
    ----------
    values : ndarray, (classes,)
        What is written for each class, in the type of the labels.
    probabilities : {"uint8", "float16", "float32"} or None
        Type of the probabilities, where integers stand for shares of 255; None if they
        are not wanted.
    """

    values: NDArray[Any]
    probabilities: str | None = None

    def labels(self, probabilities: Tensor) -> Tensor:
        """Return the value of each pixel's likeliest class, of equals the first.

        Torch's argmax takes many times longer, as classes are the outermost axis.

        Parameters
        ----------
        probabilities : Tensor
            (..., classes, rows, columns).

        Returns
        -------
        Tensor
            (..., rows, columns), the bits of the values in a signed type, since devices lack
            operations on others.
        """
        signed: list[int] = self.values.view(f"i{self.values.itemsize}").tolist()
        dtype = getattr(torch, f"int{8 * self.values.itemsize}")
        first, *others = probabilities.unbind(-3)
        best = first.clone()
        labels = torch.full_like(best, signed[0], dtype=dtype)
        for value, part in zip(signed[1:], others, strict=True):
            labels.masked_fill_(part > best, value)
            torch.maximum(best, part, out=best)
        return labels

    def stored(self, probabilities: Tensor) -> Tensor | None:
        """Return the probabilities in their type."""
        if self.probabilities is None:
            return None
        dtype = _STORED[self.probabilities]
        if not dtype.is_floating_point:
            probabilities = (probabilities * torch.iinfo(dtype).max).round()
        return probabilities.to(dtype)


class Rows(NamedTuple):
    """Finished rows of a region, on their way to the host.

    Attributes
    ----------
    start : int
        The first, counted in the plane.
    labels : Tensor
        See `Wanted.labels`.
    probabilities : Tensor or None
        (classes, rows, columns).
    """

    start: int
    labels: Tensor
    probabilities: Tensor | None


class Blend:
    """Weighted sums of the predictions of a region's tiles, a row of tiles at a time.

    Probabilities of overlapping tiles are averaged with weights that fall to
    nearly nothing at a tile's border (a squared sine along either axis), so
    that no seam shows. A pixel gets the same bits whatever region it is part of:
    the tiles lie where they lie on the whole plane, all that touch the region are
    added, and each pixel's are added in the same order.

    Parameters
    ----------
    grid : Grid
        Where the tiles of a plane lie.
    region : Region
        What is predicted.
    classes : int
        Number of classes.
    wanted : Wanted
        What is made of the averages.
    device : torch.device
        Where the tiles are.
    """

    def __init__(
        self, grid: Grid, region: Region, classes: int, wanted: Wanted, device: torch.device
    ) -> None:
        rows, columns = grid.tiles_on(region)
        self._wanted = wanted
        self._first = region.rows.start
        self._last = columns[-1]
        self._ends = dict(zip(rows, [*rows[1:], region.rows.stop], strict=True))
        self._bottom = rows[-1]
        self._left = columns[0]
        self._inside = slice(region.columns.start - self._left, region.columns.stop - self._left)
        width = columns[-1] + grid.tile - self._left
        self._sums = torch.zeros(classes, grid.tile, width, device=device)
        along, across = grid.weights()
        self._along = torch.from_numpy(along).to(device)
        self._across = torch.from_numpy(across[region.columns]).to(device)
        window = torch.from_numpy(tile_window(grid.tile)).to(device)
        self._window = window[:, None] * window

    def weigh(self, probabilities: Tensor) -> Tensor:
        """Multiply (tiles, classes, tile, tile) by the weights of a tile's pixels, in place.

        A step of its own, rounded by itself: one that multiplies and adds is rounded
        otherwise where a processor does both at once, which depends on the width.
        """
        return probabilities.mul_(self._window)

    def add(self, weighted: Tensor, places: Sequence[Place]) -> list[Rows | None]:
        """Add tiles; for each, return the rows that the last tile of a row has finished.

        Parameters
        ----------
        weighted : Tensor
            (tiles, classes, tile, tile), from `weigh`.
        places : sequence of Place
            The next ones in the order of `Grid.places`.
        """
        if len(self._ends) == 1 and self._last == self._left:
            return self._whole_planes(weighted)
        return [self._add(tile, place) for tile, place in zip(weighted, places, strict=True)]

    def _whole_planes(self, weighted: Tensor) -> list[Rows | None]:
        """Finish tiles, each of a plane of its own, all at once."""
        (row,) = self._ends
        rows = slice(self._first, self._ends[row])
        ready = slice(rows.start - row, rows.stop - row)
        labels, chances = self._finished(weighted[:, :, ready, self._inside], rows)
        parts = [None] * len(labels) if chances is None else chances
        return [Rows(rows.start, *pair) for pair in zip(labels, parts, strict=True)]

    def _add(self, weighted: Tensor, place: Place) -> Rows | None:
        tile = weighted.shape[-1]
        start = place.column - self._left
        self._sums[:, :, start : start + tile] += weighted
        if place.column != self._last:
            return None
        end = self._ends[place.row]
        # None, where the first tiles end in the region's first rows.
        rows = slice(max(place.row, self._first), max(end, self._first))
        ready = slice(rows.start - place.row, rows.stop - place.row)
        finished = self._finished(self._sums[:, ready, self._inside], rows)
        self._scroll(tile if place.row == self._bottom else end - place.row)
        return Rows(rows.start, *finished)

    def _finished(self, sums: Tensor, rows: slice) -> tuple[Tensor, Tensor | None]:
        """Average (..., classes, rows, width), and send what is wanted of it to the host."""
        average = sums / (self._along[rows][:, None] * self._across)
        chances = self._wanted.stored(average)
        labels = _to_host(self._wanted.labels(average))
        return labels, None if chances is None else _to_host(chances)

    def _scroll(self, rows: int) -> None:
        """Drop the first rows of the sums, and begin as many new ones below."""
        kept = self._sums.shape[1] - rows
        self._sums[:, :kept] = self._sums[:, rows:].clone()
        self._sums[:, kept:] = 0


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
    labels : ndarray or None
        (rows, width), in the type of `Wanted.values`; None between bands.
    probabilities : ndarray or None
        (classes, rows, width) in the type that is wanted; None if none are, and
        between bands.
    """

    done: int
    total: int
    plane: int
    start: int = 0
    labels: NDArray[Any] | None = None
    probabilities: NDArray[Any] | None = None

    @property
    def rows(self) -> slice:
        """The rows of the band in the plane."""
        return slice(self.start, self.start + (0 if self.labels is None else len(self.labels)))


class Arriving:
    """A batch of tiles, and the rows that it finishes, on their way to the host.

    The device may still be computing them, while the next batch is prepared.

    Parameters
    ----------
    wanted : Wanted
        What the rows hold.
    tiles : sequence of (Place, Rows or None)
        The batch.
    device : torch.device
        Where they are computed.
    """

    def __init__(
        self, wanted: Wanted, tiles: Sequence[tuple[Place, Rows | None]], device: torch.device
    ) -> None:
        self._dtype = wanted.values.dtype
        self._tiles = tiles
        self._arrived: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._arrived = torch.cuda.Event(blocking=True)
            self._arrived.record()

    def bands(self, done: int, total: int) -> list[Band]:
        """Wait for the batch; return a band for each of its tiles.

        Parameters
        ----------
        done, total : int
            Tiles of the region: before this batch, and all.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        return [
            self._band(done + number, total, place.plane, rows)
            for number, (place, rows) in enumerate(self._tiles, start=1)
        ]

    def __len__(self) -> int:
        return len(self._tiles)

    def _band(self, done: int, total: int, plane: int, rows: Rows | None) -> Band:
        if rows is None:
            return Band(done, total, plane)
        labels = rows.labels.numpy().view(self._dtype)
        chances = None if rows.probabilities is None else rows.probabilities.numpy()
        return Band(done, total, plane, rows.start, labels, chances)


def _to_host(tensor: Tensor) -> Tensor:
    """Copy to the host; a GPU does so while it computes, but not to memory of every kind."""
    if not tensor.is_cuda:
        return tensor.cpu()
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


def class_values(classes: Sequence[LabelClass]) -> NDArray[Any]:
    """Return the values of classes, in the smallest type that holds them."""
    values = np.array([item.value for item in classes])
    return values.astype(np.min_scalar_type(values.max()))
