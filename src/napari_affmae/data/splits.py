"""Planes for training and for validation, apart from each other.

Neighbouring planes of a stack are nearly the same, so planes drawn at random
would make validation look better than it is.
"""

from collections.abc import Sequence


def split_planes(
    n_planes: Sequence[int], fraction: float, gap: int = 1
) -> tuple[list[list[int]], list[list[int]]]:
    """Split the planes of several sources into training and validation.

    Stacks long enough give their last planes as a block, with a gap before it.
    Shorter ones and single images go to either side whole, evenly spread. With
    at least two planes and a fraction above 0, neither side is empty; the gap
    shrinks where a stack is too short for it.

    Parameters
    ----------
    n_planes : sequence of int
        Planes of each source.
    fraction : float
        Share of the planes for validation, 0 to less than 1.
    gap : int
        Planes that neither side gets, in each stack that is cut.

    Returns
    -------
    training, validation : list of list of int
        For each source its planes; validation is empty where only one plane
        exists.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if not 0 <= fraction < 1 or gap < 0 or any(count < 1 for count in n_planes):
        raise ValueError(
            "fraction must be from 0 to less than 1, gap at least 0 and planes at least 1, "
            f"got {fraction}, {gap}, {list(n_planes)}"
        )
    held = [min(count - 1, round(fraction * count)) for count in n_planes]
    whole = _whole_sources(n_planes, held, fraction)
    if fraction and not whole and not any(held):
        _hold_something(n_planes, held, whole)
    training, validation = [], []
    for number, (count, out) in enumerate(zip(n_planes, held, strict=True)):
        end = 0 if number in whole else count - out
        space = min(gap, end - 1) if 0 < end < count else 0
        training.append(list(range(end - space)))
        validation.append(list(range(end, count)))
    return training, validation


def _whole_sources(n_planes: Sequence[int], held: Sequence[int], fraction: float) -> set[int]:
    """Choose among the sources that are not cut those that go to validation, evenly spread."""
    uncut = [number for number, out in enumerate(held) if out == 0]
    wanted = min(round(fraction * len(uncut)), len(uncut) - (len(uncut) == len(n_planes)))
    return {uncut[int((i + 0.5) * len(uncut) / wanted)] for i in range(wanted)}


def _hold_something(n_planes: Sequence[int], held: list[int], whole: set[int]) -> None:
    """Hold out one plane of the longest stack, else the last of several images."""
    longest = max(range(len(n_planes)), key=lambda number: n_planes[number], default=0)
    if n_planes and n_planes[longest] > 1:
        held[longest] = 1
    elif len(n_planes) > 1:
        whole.add(len(n_planes) - 1)
