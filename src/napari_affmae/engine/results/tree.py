"""Which blocks of a smaller level are made from which of the level below."""

import math
from collections.abc import Iterator
from itertools import product

import numpy as np

from napari_affmae.engine.results.plan import BlockPlan, Box


def children(plan: BlockPlan, number: int) -> Iterator[int]:
    """Return the blocks that a block of a smaller level is computed from."""
    level, index = _located(plan, number)
    factors = factors_of(plan, level)
    box = tuple(
        slice(part.start * factor, part.stop * factor)
        for part, factor in zip(plan.blocks(level).box(index), factors, strict=True)
    )
    return touching(plan, level - 1, box)


def parent(plan: BlockPlan, number: int) -> int | None:
    """Return the block of the next level that a block is a part of; None at the last level."""
    level, index = _located(plan, number)
    if level + 1 == plan.levels:
        return None
    factors = factors_of(plan, level + 1)
    corner = (
        slice(part.start // factor, part.start // factor + 1)
        for part, factor in zip(plan.blocks(level).box(index), factors, strict=True)
    )
    return next(touching(plan, level + 1, tuple(corner)))


def made_from_alone(plan: BlockPlan, number: int) -> Iterator[int]:
    """Yield the blocks of smaller levels that a block alone decides about, the largest first."""
    above = parent(plan, number)
    while above is not None and len(list(children(plan, above))) == 1:
        yield above
        above = parent(plan, above)


def touching(plan: BlockPlan, level: int, box: Box) -> Iterator[int]:
    """Return the blocks of a level that touch a box, which may reach beyond the array."""
    blocks = plan.blocks(level)
    spans = (
        range(part.start // side, min(count, math.ceil(part.stop / side)))
        for part, side, count in zip(box, blocks.block, blocks.counts, strict=True)
    )
    for place in product(*spans):
        yield plan.first(level) + int(np.ravel_multi_index(place, blocks.counts))


def _located(plan: BlockPlan, number: int) -> tuple[int, int]:
    """Return the level of a block, and its number within it."""
    level = 0
    while number >= len(plan.blocks(level)):
        number -= len(plan.blocks(level))
        level += 1
    return level, number


def factors_of(plan: BlockPlan, level: int) -> tuple[int, ...]:
    """Return the size of a level's pixels in those of the level below."""
    pairs = zip(plan.steps[level], plan.steps[level - 1], strict=True)
    return tuple(step // below for step, below in pairs)
