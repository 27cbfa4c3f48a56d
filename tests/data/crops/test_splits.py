from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_affmae.data.crops.splits import split_planes


def all_of(n_planes: Sequence[int]) -> list[list[int]]:
    return [list(range(count)) for count in n_planes]


@pytest.mark.parametrize(
    ("n_planes", "fraction", "held"),
    [
        ([70], 0.2, [list(range(56, 70))]),
        ([130, 50, 1, 1, 1], 0.05, [list(range(124, 130)), [48, 49], [], [], []]),
        ([1] * 10, 0.2, [[], [], [0], [], [], [], [], [0], [], []]),
        ([1, 1], 0.05, [[], [0]]),
        ([2], 0.2, [[1]]),
        ([3], 0.2, [[2]]),
        ([4, 1], 0.01, [[3], []]),
        ([1], 0.5, [[]]),
        ([9, 9], 0, [[], []]),
        ([], 0.2, []),
    ],
)
def test_what_is_held_out(n_planes, fraction, held):
    assert split_planes(all_of(n_planes), fraction)[1] == held


@pytest.mark.parametrize(
    ("planes", "training", "validation"),
    [
        ([[3, 40, 90]], [[3, 40]], [[90]]),
        ([[89, 90]], [[89]], [[90]]),
        ([[], [7], []], [[], [7], []], [[], [], []]),
        ([[], [7], [], [2]], [[], [7], [], []], [[], [], [], [2]]),
        ([[], list(range(10))], [[], list(range(8))], [[], [8, 9]]),
    ],
)
def test_only_usable_planes_are_split(planes, training, validation):
    assert split_planes(planes, 0.2) == (training, validation)


@given(
    st.lists(st.integers(1, 60), max_size=12),
    st.floats(0, 0.99),
)
def test_both_sides_are_apart_and_neither_is_empty(n_planes, fraction):
    training, validation = split_planes(all_of(n_planes), fraction)
    for count, mine, theirs in zip(n_planes, training, validation, strict=True):
        assert mine + theirs == list(range(count))
    if sum(n_planes):
        assert any(training)
    assert any(validation) == (fraction > 0 and sum(n_planes) > 1)


@pytest.mark.parametrize("arguments", [([[0]], 1.0), ([[0]], -0.1)])
def test_numbers_out_of_range(arguments):
    with pytest.raises(ValueError, match="fraction must be"):
        split_planes(*arguments)
