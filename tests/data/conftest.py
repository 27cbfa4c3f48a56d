from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray


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
