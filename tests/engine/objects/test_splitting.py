"""Objects that are divided along a line."""

import numpy as np
import pytest
from skimage.draw import disk
from skimage.draw import line as draw_line

from napari_affmae.engine.objects.splitting import split_object


def two_discs() -> np.ndarray:
    """Two discs of radius 12 that overlap a little."""
    inside = np.zeros((40, 60), bool)
    for column, radius in ((18, 12), (40, 11)):
        inside[disk((20, column), radius, shape=inside.shape)] = True
    return inside


def stroke(shape: tuple[int, int], first: tuple[int, int], last: tuple[int, int]) -> np.ndarray:
    drawn = np.zeros(shape, bool)
    drawn[draw_line(*first, *last)] = True
    return drawn


@pytest.mark.parametrize("last", [(39, 30), (39, 33)])
def test_a_line_between_two_discs_divides_them(last):
    inside = two_discs()
    pieces = split_object(inside, stroke(inside.shape, (0, 28), last))
    np.testing.assert_array_equal(pieces > 0, inside)
    assert pieces.max() == 2
    assert set(pieces[:, :27][inside[:, :27]]) == {1}  # the larger one comes first
    assert set(pieces[:, 34:][inside[:, 34:]]) == {2}


def test_a_line_that_ends_inside_divides_nothing():
    inside = two_discs()
    with pytest.raises(ValueError, match="does not divide the object"):
        split_object(inside, stroke(inside.shape, (0, 29), (20, 29)))
    with pytest.raises(ValueError, match="does not divide the object"):
        split_object(inside, stroke(inside.shape, (0, 0), (0, 59)))
    with pytest.raises(ValueError, match="got shapes"):
        split_object(inside, np.zeros((3, 3), bool))


def test_a_division_goes_through_all_planes():
    inside = np.stack([two_discs()] * 5)
    pieces = split_object(inside, stroke(inside.shape[1:], (0, 29), (39, 29)), plane=2)
    np.testing.assert_array_equal(pieces > 0, inside)
    for plane in range(5):
        assert set(pieces[plane, 20, 10:20]) == {1}
        assert set(pieces[plane, 20, 36:46]) == {2}


def test_parts_beyond_the_line_stay_with_the_first_piece():
    inside = two_discs()
    inside[0:3, 55:60] = True  # joined to the object by hand, without touching it
    pieces = split_object(inside, stroke(inside.shape, (0, 29), (39, 29)))
    np.testing.assert_array_equal(pieces > 0, inside)
    assert pieces.max() == 2
