import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from napari_affmae.engine.inference.tiles import Grid, Region, predict_region

SIZES = [(64, 64), (65, 64), (200, 333), (63, 500), (1, 1), (64, 40), (129, 65)]


def reader(image):
    return lambda plane, rows, columns: image[:, rows, columns]


def predict_plane(read, predict, grid, classes, batch):
    region = Region([0], slice(0, grid.height), slice(0, grid.width))
    return predict_region(read, predict, grid, region, classes, batch)


def assemble(bands, shape):
    """Put the bands together, and check that they follow each other."""
    whole, row = np.full(shape, np.nan, np.float32), 0
    for band in bands:
        if band.probabilities is not None:
            assert band.start == row
            row += band.probabilities.shape[1]
            whole[:, band.start : row] = band.probabilities
    assert row == shape[1]
    return whole


def pixelwise(tiles):
    """A network that looks at single pixels: where tiles lie cannot matter."""
    foreground = 1 / (1 + np.exp(-tiles[:, 0]))
    return np.stack([1 - foreground, foreground], axis=1).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_size_is_covered_exactly(size, overlap, batch):
    image = np.random.default_rng(0).normal(size=(1, *size)).astype(np.float32)
    grid = Grid(*size, tile=64, overlap=overlap)
    bands = list(predict_plane(reader(image), pixelwise, grid, classes=2, batch=batch))
    expected = pixelwise(image[None])[0]
    np.testing.assert_allclose(assemble(bands, (2, *size)), expected, atol=1e-6)
    done = [band.done for band in bands]
    assert done == sorted(set(done))
    assert done[-1] == bands[0].total == len(grid.rows) * len(grid.columns)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_have_one_size_and_lie_within_the_plane(size):
    grid = Grid(*size, tile=64, overlap=0.25)
    for length, starts in zip(size, (grid.rows, grid.columns), strict=True):
        assert starts[0] == 0
        assert starts[-1] == max(0, length - 64)
        assert all(0 < after - before <= 48 for before, after in pairwise(starts))


def test_neighbouring_tiles_that_disagree_blend_without_a_seam():
    seen = []

    def moody(tiles):
        seen.append(len(tiles))
        value = np.full((1, 1, 64, 64), len(seen) % 2, np.float32)
        return np.concatenate([1 - value, value], axis=1)

    image = np.zeros((1, 64, 112), np.float32)
    grid = Grid(64, 112, tile=64, overlap=0.25)
    whole = assemble(predict_plane(reader(image), moody, grid, classes=2, batch=1), (2, 64, 112))
    row = whole[1, 30]
    assert row[0] == pytest.approx(1)
    assert row[-1] == pytest.approx(0)
    assert np.abs(np.diff(row)).max() < 0.2
    np.testing.assert_allclose(whole.sum(0), 1, atol=1e-6)


def test_small_planes_are_mirrored_to_a_tile():
    image = np.arange(64 * 40, dtype=np.float32).reshape(1, 64, 40)
    tiles = []

    def looking(given):
        tiles.append(given)
        return pixelwise(given)

    list(predict_plane(reader(image), looking, Grid(64, 40, 64, 0), classes=2, batch=1))
    np.testing.assert_array_equal(tiles[0][0, :, :, 40:], image[:, :, 38:14:-1])


def test_memory_is_one_row_of_tiles():
    """A plane of 200 rows of tiles is never held as a whole."""
    image = np.zeros((1, 64 * 100, 128), np.float32)
    grid = Grid(*image.shape[1:], tile=64, overlap=0)
    tracemalloc.start()
    for _ in predict_plane(reader(image), pixelwise, grid, classes=2, batch=1):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes / 4


def network(tiles):
    """A network whose prediction depends on where in the tile a pixel lies."""
    waves = np.cumsum(np.cumsum(tiles, 2), 3)
    return np.concatenate([waves, tiles * 3, tiles - waves], 1)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_region_has_the_bits_that_it_has_on_the_whole_planes(overlap, batch):
    image = np.random.default_rng(1).normal(size=(3, 150, 333)).astype(np.float32)

    def read(plane, rows, columns):
        return image[plane, None, rows, columns]

    def predict(planes, rows, columns):
        grid, region = Grid(150, 333, 64, overlap), Region(planes, rows, columns)
        out = np.full(
            (len(planes), 3, rows.stop - rows.start, columns.stop - columns.start), np.nan
        )
        bands = list(predict_region(read, network, grid, region, classes=3, batch=batch))
        for band in bands:
            if band.probabilities is not None:
                first = band.start - rows.start
                part = out[planes.index(band.plane), :, first : first + band.probabilities.shape[1]]
                part[:] = band.probabilities
        assert bands[-1].done == bands[-1].total == grid.count(region)
        return out

    whole = predict([0, 1, 2], slice(0, 150), slice(0, 333))
    assert np.isfinite(whole).all()
    for rows, columns in (((0, 70), (0, 333)), ((70, 150), (5, 44)), ((63, 64), (200, 333))):
        part = predict([2, 1], slice(*rows), slice(*columns))
        expected = whole[[2, 1], :, slice(*rows), slice(*columns)]
        np.testing.assert_array_equal(part, expected)
