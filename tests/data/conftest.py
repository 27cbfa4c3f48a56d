from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from napari_affmae.data import ImageSource


@pytest.fixture
def stack() -> NDArray[np.uint8]:
    """Five different planes of 40 x 56, uint8."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 255, (5, 40, 56), dtype=np.uint8)


@pytest.fixture
def pages(tmp_path: Path, stack: NDArray[np.uint8]) -> Path:
    """The stack as a compressed multi-page TIFF."""
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, stack, compression="zlib", metadata=None)
    return path


@pytest.fixture
def assert_reads() -> Callable[[ImageSource, NDArray[Any]], None]:
    """Compare whole planes and parts with (planes, rows, columns) or (..., channels last)."""

    def check(source: ImageSource, expected: NDArray[Any]) -> None:
        expected = expected[:, None] if expected.ndim == 3 else np.moveaxis(expected, -1, 1)
        assert source.n_planes == len(expected)
        for plane in (len(expected) - 1, 0):
            np.testing.assert_array_equal(source.read(plane), expected[plane])
            part = source.read(plane, slice(3, 20), slice(10, 99))
            np.testing.assert_array_equal(part, expected[plane, :, 3:20, 10:99])
        assert source.read(0).dtype == expected.dtype.newbyteorder("=")

    return check
