"""Which block comes into the pool, when, and which has to leave for it.

All of it follows from the seed, the sizes of the blocks, and the size of the
pool, so that a resumed run sees the blocks that the run would have seen.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Crops that each pixel of a block is in, on average, until the next block comes. Few make the
# disk the limit, many keep the network from seeing other blocks.
USES = 4
# The number of blocks that are read before the first step; the first batches are drawn from them.
FIRST_BLOCKS = 16
# Offsets are multiples of it, so that any type of pixel is aligned.
_ALIGNMENT = 16


def place_bytes(pixels: NDArray[np.int64], bytes_per_pixel: int) -> NDArray[np.int64]:
    """Return the bytes of the pool that blocks of so many pixels take."""
    return -(-pixels * bytes_per_pixel // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True)
class Arrival:
    """A block that comes into the pool.

    Attributes
    ----------
    number : int
        How many came before it.
    block : int
        Number of the block.
    due : float
        Number of the crop from which on it is drawn from.
    offset : int
        First byte of its place.
    oldest : int
        Number of the oldest arrival that stays when this one takes its place.
    """

    number: int
    block: int
    due: float
    offset: int
    oldest: int


class Schedule:
    """Arrivals in their order, into a ring of bytes that the newest takes from the oldest.

    Blocks come in a random order, each once, then in another one, and so on. If
    all of them fit, they come once and stay.

    Parameters
    ----------
    blocks : sequence of int
        Numbers of the blocks.
    pixels : ndarray, int64
        Pixels of a block, by its number.
    bytes_per_pixel : int
        What a pixel takes, all channels and its label.
    capacity : int
        Bytes of the pool, at least those of the largest block.
    crop : int
        Side of a crop, pixels.
    seed : int
        Of the order.

    Attributes
    ----------
    pixels : int
        Of all its blocks.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        pixels: NDArray[np.int64],
        bytes_per_pixel: int,
        capacity: int,
        crop: int,
        seed: int,
    ) -> None:
        self._blocks = list(blocks)
        self._known = set(self._blocks)
        self._pixels = pixels
        self._bytes = place_bytes(pixels, bytes_per_pixel)
        self._area = crop**2
        self._capacity = capacity
        self._seed = seed
        self._total = int(self._bytes[self._blocks].sum())
        self.pixels = int(pixels[self._blocks].sum())
        self._places: deque[tuple[int, int]] = deque()  # first byte and end of each, oldest first
        self._head = 0
        self._count = 0
        self._due = 0.0
        self._rounds = 0
        self._order: deque[int] = deque()

    @property
    def all_fit(self) -> bool:
        """Whether every block comes once and stays."""
        return self._total <= self._capacity

    def next(self) -> Arrival | None:
        """Return the next arrival; None once everything is there."""
        if not self._order:
            if self._rounds and self.all_fit:
                return None
            self._begin_round()
        return self._arrive(self._order.popleft())

    def insert(self, block: int) -> Arrival:
        """Let a block come next; one that the schedule did not have comes in later rounds, too."""
        if not self._rounds:
            self._begin_round()  # without the block, which comes now
        if block not in self._known:
            self._known.add(block)
            self._blocks.append(block)
            self._total += int(self._bytes[block])
            self.pixels += int(self._pixels[block])
        return self._arrive(block)

    def _begin_round(self) -> None:
        rng = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, 0, self._rounds]))
        self._order.extend(rng.permutation(self._blocks).tolist())
        self._rounds += 1

    def _arrive(self, block: int) -> Arrival:
        offset, others_leave = self._make_room(int(self._bytes[block]))
        if self._count >= FIRST_BLOCKS or others_leave:
            self._due += USES * int(self._pixels[block]) / self._area
        self._count += 1
        return Arrival(self._count - 1, block, self._due, offset, self._count - len(self._places))

    def _make_room(self, size: int) -> tuple[int, bool]:
        """Find the place of the next block, and say whether others leave for it."""
        before = len(self._places)
        if self._head + size > self._capacity:
            # What lies from here to the end is older than what lies at the start.
            while self._places and self._places[0][0] >= self._head:
                self._places.popleft()
            self._head = 0
        start, end = self._head, self._head + size
        while self._places and self._places[0][0] < end and self._places[0][1] > start:
            self._places.popleft()
        others_leave = len(self._places) < before
        self._places.append((start, end))
        self._head = end
        return start, others_leave
