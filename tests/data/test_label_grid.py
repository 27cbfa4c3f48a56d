import numpy as np
import pytest

from napari_affmae.data.label_grid import labelled_squares


@pytest.mark.parametrize("corner", [(0, 0), (8, 16), (3, 15), (7, 1)])
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (9, 30), (33, 7)])
def test_squares_that_hold_a_pixel(corner, shape):
    rng = np.random.default_rng(0)
    plane = np.zeros((64, 64), bool)
    part = (slice(corner[0], corner[0] + shape[0]), slice(corner[1], corner[1] + shape[1]))
    plane[part] = rng.random(shape) < 0.03
    expected = {(row // 8, column // 8) for row, column in np.argwhere(plane)}
    found = np.argwhere(labelled_squares(plane[part], 8, corner))
    first = np.array(corner) // 8
    assert {(row, column) for row, column in (found + first).tolist()} == expected


def test_every_square_has_an_element():
    assert labelled_squares(np.ones((17, 8), bool), 8).tolist() == [[True]] * 3
    assert labelled_squares(np.zeros((4, 4), bool), 8, (6, 0)).tolist() == [[False]] * 2
