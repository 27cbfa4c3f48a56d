from itertools import pairwise

import pytest

from napari_affmae.engine.inference.tiles import Grid

SIZES = [(64, 64), (65, 64), (200, 333), (63, 500), (1, 1), (64, 40), (129, 65)]


@pytest.mark.parametrize("size", SIZES)
def test_tiles_have_one_size_and_lie_within_the_plane(size):
    grid = Grid(*size, tile=64, overlap=0.25)
    for length, starts in zip(size, (grid.rows, grid.columns), strict=True):
        assert starts[0] == 0
        assert starts[-1] == max(0, length - 64)
        assert all(0 < after - before <= 48 for before, after in pairwise(starts))
