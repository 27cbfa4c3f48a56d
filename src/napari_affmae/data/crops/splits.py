"""Planes for training and for validation, apart from each other.

Neighbouring planes of a stack are nearly the same, so planes drawn at random
would make validation look better than it is.
"""

from collections.abc import Sequence


def split_planes(
    planes: Sequence[Sequence[int]], fraction: float
) -> tuple[list[list[int]], list[list[int]]]:
    """Split the planes of several sources into training and validation.

    Stacks long enough give their last planes as a block. Shorter ones and single
    images go to either side whole, evenly spread. With at least two planes and a
    fraction above 0, neither side is empty.

    Parameters
    ----------
    planes : sequence of sequence of int
        Planes of each source that can be used, ascending: all of them, or
        those that hold labels. Sources without any take no part.
    fraction : float
        Share of these planes for validation, 0 to less than 1.

    Returns
    -------
    training, validation : list of list of int
        For each source its planes; validation is empty where only one plane
        exists.

    Raises
    ------
    ValueError
        If the fraction is out of range.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be from 0 to less than 1, got {fraction}")
    counts = [len(numbers) for numbers in planes]
    held = [max(0, min(count - 1, round(fraction * count))) for count in counts]
    whole = _whole_sources(counts, held, fraction)
    if fraction and not whole and not any(held):
        _hold_something(counts, held, whole)
    training, validation = [], []
    for number, (numbers, out) in enumerate(zip(planes, held, strict=True)):
        end = 0 if number in whole else len(numbers) - out
        training.append(list(numbers[:end]))
        validation.append(list(numbers[end:]))
    return training, validation


def _whole_sources(counts: Sequence[int], held: Sequence[int], fraction: float) -> set[int]:
    """Choose among the sources that are not cut those that go to validation, evenly spread."""
    uncut = [number for number, count in enumerate(counts) if count and not held[number]]
    wanted = min(round(fraction * len(uncut)), len(uncut) - (not any(held)))
    return {uncut[int((i + 0.5) * len(uncut) / wanted)] for i in range(wanted)}


def _hold_something(counts: Sequence[int], held: list[int], whole: set[int]) -> None:
    """Hold out one plane of the longest stack, else the last of several images."""
    longest = max(range(len(counts)), key=lambda number: counts[number], default=0)
    usable = [number for number, count in enumerate(counts) if count]
    if usable and counts[longest] > 1:
        held[longest] = 1
    elif len(usable) > 1:
        whole.add(usable[-1])
