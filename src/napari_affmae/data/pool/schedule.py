"""Which block comes into the pool, when, and which has to leave for it.

All of it follows from the seed, the sizes of the blocks, and the size of the
pool, so that a resumed run sees the blocks that the run would have seen.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Crops that each pixel of a block is in, on average, until the next block comes. Few make the
# disk the limit, many keep the network from seeing other blocks.
USES = 4
# So many blocks are there before the first step: the first batches are drawn from all of them.
FIRST_BLOCKS = 16
# Offsets are multiples of it, so that any type of pixel is aligned.
_ALIGNMENT = 16


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


@dataclass(frozen=True)
class Size:
    """Size of a block: the bytes of its place, and its pixels."""

    bytes: int
    pixels: int


class Schedule:
    """Arrivals in their order, into a ring of bytes that the newest takes from the oldest.

    Blocks come in a random order, each once, then in another one, and so on. If
    all of them fit, they come once and stay.

    Parameters
    ----------
    blocks : sequence of int
        Numbers of the blocks.
    size : Callable
        Size of the block of a number.
    capacity : int
        Bytes of the pool, at least those of the largest block.
    crop : int
        Side of a crop, pixels.
    seed : int
        Of the order.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        size: Callable[[int], Size],
        capacity: int,
        crop: int,
        seed: int,
    ) -> None:
        self._blocks = list(blocks)
        self._size = size
        self._capacity = capacity
        self._area = crop**2
        self._seed = seed
        self._total = sum(_aligned(size(block).bytes) for block in self._blocks)
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
            if not self._blocks or (self._rounds and self.all_fit):
                return None
            counter = [0, 0, 1, self._rounds]  # crops have numbers of their own
            rng = np.random.Generator(np.random.Philox(key=self._seed, counter=counter))
            self._order.extend(rng.permutation(self._blocks).tolist())
            self._rounds += 1
        return self._arrive(self._order.popleft())

    def insert(self, block: int) -> Arrival:
        """Let a block that the schedule does not have come next, and in later rounds."""
        self._blocks.append(block)
        self._total += _aligned(self._size(block).bytes)
        self._rounds = max(1, self._rounds)
        return self._arrive(block)

    def _arrive(self, block: int) -> Arrival:
        size = self._size(block)
        is_first = not self._places
        offset, others_leave = self._make_room(_aligned(size.bytes))
        if self._count >= FIRST_BLOCKS or (others_leave and not is_first):
            self._due += USES * size.pixels / self._area
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
        leaving = len(self._places) < before
        self._places.append((start, end))
        self._head = end
        return start, leaving


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
