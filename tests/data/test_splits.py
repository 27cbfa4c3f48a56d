from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_affmae.data.splits import split_planes


def all_of(n_planes: Sequence[int]) -> list[list[int]]:
    return [list(range(count)) for count in n_planes]


@pytest.mark.parametrize(
    ("n_planes", "fraction", "gap", "held"),
    [
        ([70], 0.2, 1, [list(range(56, 70))]),
        ([130, 50, 1, 1, 1], 0.05, 1, [list(range(124, 130)), [48, 49], [], [], []]),
        ([1] * 10, 0.2, 1, [[], [], [0], [], [], [], [], [0], [], []]),
        ([1, 1], 0.05, 1, [[], [0]]),
        ([2], 0.2, 3, [[1]]),
        ([3], 0.2, 1, [[2]]),
        ([4, 1], 0.01, 1, [[3], []]),
        ([1], 0.5, 1, [[]]),
        ([9, 9], 0, 1, [[], []]),
        ([], 0.2, 1, []),
    ],
)
def test_what_is_held_out(n_planes, fraction, gap, held):
    assert split_planes(all_of(n_planes), fraction, gap)[1] == held


@pytest.mark.parametrize(
    ("planes", "training", "validation"),
    [
        ([[3, 40, 90]], [[3, 40]], [[90]]),
        ([[3, 89, 90]], [[3]], [[90]]),
        ([[89, 90]], [[89]], [[90]]),
        ([[], [7], []], [[], [7], []], [[], [], []]),
        ([[], [7], [], [2]], [[], [7], [], []], [[], [], [], [2]]),
        ([[], list(range(10))], [[], list(range(7))], [[], [8, 9]]),
    ],
)
def test_only_usable_planes_are_split(planes, training, validation):
    assert split_planes(planes, 0.2, 1) == (training, validation)


def test_gap_is_left_out():
    training, validation = split_planes([range(20)], 0.2, 3)
    assert training == [list(range(13))]
    assert validation == [list(range(16, 20))]


@given(
    st.lists(st.integers(1, 60), max_size=12),
    st.floats(0, 0.99),
    st.integers(0, 4),
)
def test_both_sides_are_apart_and_neither_is_empty(n_planes, fraction, gap):
    training, validation = split_planes(all_of(n_planes), fraction, gap)
    for count, mine, theirs in zip(n_planes, training, validation, strict=True):
        assert not set(mine) & set(theirs)
        assert set(mine) | set(theirs) <= set(range(count))
        assert theirs == list(range(min(theirs, default=0), max(theirs, default=-1) + 1))
        if mine and theirs:
            assert min(theirs) - max(mine) == 1 + min(gap, count - len(theirs) - 1)
        assert mine or theirs
    if sum(n_planes):
        assert any(training)
    assert any(validation) == (fraction > 0 and sum(n_planes) > 1)


@pytest.mark.parametrize("arguments", [([[0]], 1.0), ([[0]], -0.1), ([[0]], 0.2, -1)])
def test_numbers_out_of_range(arguments):
    with pytest.raises(ValueError, match="fraction must be"):
        split_planes(*arguments)
