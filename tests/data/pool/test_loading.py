import numpy as np
import pytest

from napari_affmae.config import NormalizationConfig
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.normalization.normalization import normalize_sources
from napari_affmae.data.pool.blocks import BlockGrid
from napari_affmae.data.pool.loading import load_pixels, stored_type


def sources(*dtypes, **settings):
    rng = np.random.default_rng(0)
    arrays = []
    for dtype in dtypes:
        values = rng.integers(0, 100, (2, 70, 80)).astype(dtype)
        if np.dtype(dtype).kind == "i":
            values -= 50
        if np.dtype(dtype).kind == "f":
            values[:, 3:9, 5], values[0, 0, 0] = np.nan, np.inf
        arrays.append(values)
    return normalize_sources(
        [open_source(array, axes="ZYX") for array in arrays], NormalizationConfig(**settings)
    )


@pytest.mark.parametrize(
    ("dtypes", "stored"),
    [
        (["u1"], "u1"),
        (["?"], "u1"),
        (["i1"], "i2"),
        (["u1", "i1"], "i2"),
        (["i2"], "i2"),
        ([">u2"], "u2"),
        (["u1", "u2"], "u2"),
        (["u2", "i2"], "f4"),
        (["u4"], "f4"),
        (["u1", "f4"], "f4"),
        (["f8"], "f4"),
        (["u1"] * 100 + ["u2"] * 100, "u2"),
    ],
)
def test_the_type_of_a_pool_holds_all_sources(dtypes, stored):
    assert stored_type(sources(*dtypes)) == np.dtype(stored)


def test_what_is_equalised_is_stored_as_it_was_computed():
    assert stored_type(sources("u1", clahe=True)) == np.float32
    assert stored_type(sources("u1", invert=True)) == np.uint8


@pytest.mark.parametrize("dtypes", [["u1"], ["i1"], [">u2"], ["u1", "i2"], ["f4"], ["i4", "u1"]])
@pytest.mark.parametrize("settings", [{}, {"invert": True}, {"clahe": True, "invert": True}])
def test_limits_normalise_what_is_stored(dtypes, settings):
    made = sources(*dtypes, **settings)
    dtype = stored_type(made)
    for block in BlockGrid(made, 64):
        pixels, limits = load_pixels(made[block.source], block, dtype)
        assert pixels.dtype == dtype
        assert pixels.flags.c_contiguous
        assert np.isfinite(pixels).all()
        assert (limits.dtype, limits.shape) == (np.float32, (1, 4))
        low, high, scale, offset = limits[0]
        values = np.clip(pixels.astype(np.float32), low, high) * scale + offset
        expected = made[block.source].read(block.plane)
        np.testing.assert_allclose(values, expected, atol=1e-5)
