"""Reads tiles ahead of the network, and normalises them on the device."""

from collections.abc import Sequence
from itertools import chain, islice
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_affmae.data import NormalizedSource, map_in_order
from napari_affmae.engine.inference.tiles import Grid, Place, Region, read_tile

Tile = tuple[Place, NDArray[Any]]


class TileReader:
    """The tiles of a region in their order; threads read some before they are asked for.

    Use it as a context manager.

    Parameters
    ----------
    source : NormalizedSource
        The image.
    grid : Grid
        Where the tiles lie.
    region : Region
        Which of them are read.

    Attributes
    ----------
    grid, region
        As above.

    Raises
    ------
    UnreadableFileError
        From every method, if the file is damaged.
    """

    def __init__(self, source: NormalizedSource, grid: Grid, region: Region) -> None:
        self.grid, self.region = grid, region
        table = source.table()
        # What is looked up on the device travels as it is stored.
        planes = source.read if table is None else source.source.read

        def read(place: Place) -> Tile:
            return place, read_tile(planes, place, grid.tile)

        self._table = None if table is None else torch.from_numpy(table)
        self._read = map_in_order(read, grid.places(region))
        self._tiles = chain[Tile](self._read)

    def begin(self, count: int) -> None:
        """Read the first tiles now; they come first from `take`."""
        self._tiles = chain(self.take(count), self._read)

    def take(self, count: int) -> list[Tile]:
        """Return the next tiles, fewer at the end."""
        return list(islice(self._tiles, count))

    def images(self, tiles: Sequence[Tile], device: torch.device) -> Tensor:
        """Bring tiles to a device, normalised as `NormalizedSource.read` does.

        Parameters
        ----------
        tiles : sequence of (Place, ndarray)
            From `take`.
        device : torch.device
            Where to.

        Returns
        -------
        Tensor
            (count, channels, tile, tile) float32.
        """
        first = tiles[0][1]
        # Integers by their bits, since devices lack operations on those without a sign.
        dtype = first.dtype if self._table is None else np.dtype(f"i{first.itemsize}")
        stacked = torch.empty(
            (len(tiles), *first.shape),
            dtype=getattr(torch, dtype.name),
            pin_memory=device.type == "cuda",
        )
        for place, (_, pixels) in zip(stacked.numpy(), tiles, strict=True):
            place[:] = pixels.view(dtype)
        moved = stacked.to(device, non_blocking=True)
        if self._table is None:
            return moved
        self._table = self._table.to(device)
        return _looked_up(moved, self._table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._read.close()


def _looked_up(stored: Tensor, table: Tensor) -> Tensor:
    """Replace the bits of (count, channels, rows, columns) values by what the table has there."""
    bits = table.shape[1] - 1
    images = torch.empty(stored.shape, device=stored.device)
    for channel, values in enumerate(table):
        part = stored[:, channel]
        index = part.to(torch.int32).bitwise_and_(bits).flatten()
        images[:, channel] = values.index_select(0, index).view(part.shape)
    return images
