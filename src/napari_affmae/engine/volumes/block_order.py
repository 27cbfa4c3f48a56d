"""Which block of a volume is computed next."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from napari_affmae.engine.inference.tiles import Region
from napari_affmae.engine.results.plan import BlockPlan, Box
from napari_affmae.engine.results.volume import Volume

#: Asked for the part of the image that the user looks at; None if that is not known.
Focus = Callable[[], Region | None]


class BlockOrder:
    """Hands out the missing blocks of a volume, each once.

    A block of a smaller level comes as soon as those below it are complete, so that a
    viewer has what it shows from afar; then what the user looks at; then the rest in turn.

    Parameters
    ----------
    volume : Volume
        The result.
    together : int
        Most blocks of the full resolution that are handed out at a time.
    focus : callable, optional
        Asked again and again where the user looks.
    """

    def __init__(self, volume: Volume, together: int, focus: Focus | None = None) -> None:
        self._plan, self._ledger = volume.plan, volume.ledger
        self._together, self._focus = together, focus
        self._running: set[int] = set()
        first, last = self._plan.first(1), self._plan.first(self._plan.levels)
        self._rest = self._ledger.missing(range(first))
        begun = range(first, last) if self._ledger.done else range(0)
        self._ready = deque(filter(self._is_ready, begun))

    def take(self) -> list[int]:
        """Return the numbers of the next blocks, of one level; none if all the rest must wait."""
        if self._ready:
            numbers = [self._ready.popleft()]
        else:
            numbers = self._in_focus()[: self._together]
            while len(numbers) < self._together:
                number = next(self._rest, None)
                if number is None:
                    break
                if number not in self._running and number not in numbers:
                    numbers.append(number)
        self._running.update(numbers)
        return numbers

    def completed(self, number: int) -> None:
        """Note that a block was marked."""
        self._running.discard(number)
        parent = _parent(self._plan, number)
        if parent is not None and parent not in self._running and self._is_ready(parent):
            self._ready.append(parent)

    def _is_ready(self, number: int) -> bool:
        below = _children(self._plan, number)
        return not self._ledger.has(number) and all(map(self._ledger.has, below))

    def _in_focus(self) -> list[int]:
        region = None if self._focus is None else self._focus()
        if region is None:
            return []
        touching = dict.fromkeys(_touching(self._plan, region))
        return [n for n in touching if not (self._ledger.has(n) or n in self._running)]


def _touching(plan: BlockPlan, region: Region) -> Iterator[int]:
    """Return the blocks of the full resolution that touch a part of the image."""
    blocks = plan.blocks(0)
    for plane in region.planes:
        lead = (slice(n, n + 1) for n in plan.position(plane))
        yield from _numbers(plan, 0, (*lead, region.rows, region.columns), blocks.block)


def _children(plan: BlockPlan, number: int) -> Iterator[int]:
    """Return the blocks that a block of a smaller level is computed from."""
    level, index = _located(plan, number)
    factors = _factors(plan, level)
    box = tuple(
        slice(part.start * factor, part.stop * factor)
        for part, factor in zip(plan.blocks(level).box(index), factors, strict=True)
    )
    return _numbers(plan, level - 1, box, plan.blocks(level - 1).block)


def _parent(plan: BlockPlan, number: int) -> int | None:
    """Return the block of the next level that a block is a part of; None at the last level."""
    level, index = _located(plan, number)
    if level + 1 == plan.levels:
        return None
    factors = _factors(plan, level + 1)
    corner = (
        slice(part.start // factor, part.start // factor + 1)
        for part, factor in zip(plan.blocks(level).box(index), factors, strict=True)
    )
    return next(_numbers(plan, level + 1, tuple(corner), plan.blocks(level + 1).block))


def _located(plan: BlockPlan, number: int) -> tuple[int, int]:
    """Return the level of a block, and its number within it."""
    level = 0
    while number >= len(plan.blocks(level)):
        number -= len(plan.blocks(level))
        level += 1
    return level, number


def _factors(plan: BlockPlan, level: int) -> tuple[int, ...]:
    """Return the size of a level's pixels in those of the level below."""
    pairs = zip(plan.steps[level], plan.steps[level - 1], strict=True)
    return tuple(step // below for step, below in pairs)


def _numbers(plan: BlockPlan, level: int, box: Box, sides: tuple[int, ...]) -> Iterator[int]:
    """Return the blocks of a level that touch a box, which may reach beyond the array."""
    blocks = plan.blocks(level)
    spans = (
        range(part.start // side, min(count, math.ceil(part.stop / side)))
        for part, side, count in zip(box, sides, blocks.counts, strict=True)
    )
    for place in product(*spans):
        yield plan.first(level) + int(np.ravel_multi_index(place, blocks.counts))
