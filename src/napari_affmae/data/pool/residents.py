"""The table of the blocks that lie in the pool."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.pool.blocks import Block


class Residents:
    """A table of the blocks in the pool, oldest arrival first.

    Parameters
    ----------
    channels : int
        Of the images.

    Attributes
    ----------
    version : int
        Counts up with every change.
    pixels : int
        Of all the blocks.
    """

    def __init__(self, channels: int) -> None:
        self._dtype = np.dtype(
            [
                ("arrival", np.int64),
                ("block", np.int64),
                ("source", np.int32),
                ("plane", np.int32),
                ("offset", np.int64),
                ("label_offset", np.int64),
                ("corner", np.int32, 2),
                ("size", np.int32, 2),
                ("starts", np.int32, 2),
                ("weight", np.float64),
                ("limits", np.float32, (channels, 4)),
            ]
        )
        self._table: NDArray[Any] = np.zeros(64, self._dtype)
        self._first = self._end = 0
        self.version = 0
        self.pixels = 0
        self._weights: tuple[int, NDArray[np.float64]] | None = None

    def __len__(self) -> int:
        return self._end - self._first

    @property
    def rows(self) -> NDArray[Any]:
        """One entry a block; a view that the next change makes stale."""
        return self._table[self._first : self._end]

    @property
    def weight_ends(self) -> NDArray[np.float64]:
        """Sums of the weights up to and with each block, float64."""
        if self._weights is None or self._weights[0] != self.version:
            self._weights = self.version, np.cumsum(self.rows["weight"])
        return self._weights[1]

    def insert(
        self,
        arrival: int,
        block: Block,
        offset: int,
        label_offset: int,
        limits: NDArray[np.float32],
    ) -> None:
        """Add a block; mostly the newest, but some are read before their turn."""
        if self._end == len(self._table):
            rows = self.rows
            self._table = np.zeros(max(64, 2 * len(rows)), self._dtype)
            self._table[: len(rows)] = rows
            self._first, self._end = 0, len(rows)
        place = self._end
        while place > self._first and self._table[place - 1]["arrival"] > arrival:
            self._table[place] = self._table[place - 1]
            place -= 1
        size = block.rows.stop - block.rows.start, block.columns.stop - block.columns.start
        self._table[place] = (
            arrival,
            block.number,
            block.source,
            block.plane,
            offset,
            label_offset,
            (block.rows.start, block.columns.start),
            size,
            block.starts,
            block.weight,
            limits,
        )
        self._end += 1
        self.pixels += size[0] * size[1]
        self.version += 1

    def drop_before(self, arrival: int) -> None:
        """Remove those that came before an arrival."""
        while self._first < self._end and self._table[self._first]["arrival"] < arrival:
            self.pixels -= int(self._table[self._first]["size"].prod(dtype=np.int64))
            self._first += 1
            self.version += 1
