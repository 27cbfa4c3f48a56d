import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from napari_affmae.data import ImageSource
from napari_affmae.data.sources.source import ArraySource


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


class WatchedSource(ArraySource):
    """Counts what is read of it, and can be slow, closed for a while, or broken.

    Attributes
    ----------
    reads : list of int
        Planes, as they were read.
    seconds : float
        A read takes up to so long, at random.
    gate : threading.Event
        Reads wait for it.
    broken : Exception or None
        What reads raise.
    """

    def __init__(self, array: NDArray[Any], axes: str = "ZYX", name: str = "watched") -> None:
        super().__init__(array, axes=axes, name=name)
        self.reads: list[int] = []
        self.seconds = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.broken: Exception | None = None

    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        self.reads.append(index[0])
        assert self.gate.wait(timeout=20)
        if self.seconds:
            time.sleep(self.seconds * random.random())
        if self.broken is not None:
            raise self.broken
        return super()._fetch(index)


@pytest.fixture
def watched() -> type[WatchedSource]:
    """Sources that tests look at and break."""
    return WatchedSource


class PaintedSource(WatchedSource):
    """Labels that are painted, as in a viewer's layer, and know what changed where.

    Parameters
    ----------
    array : ndarray, (planes, rows, columns)
        Painted in place.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        super().__init__(array, name="painted")
        self.array = array
        self.strokes: list[list[tuple[slice, slice]]] = [[] for _ in array]

    def paint(self, plane: int, rows: slice, columns: slice, value: int) -> None:
        self.array[plane, rows, columns] = value
        self.strokes[plane].append((rows, columns))

    def revision(self, plane: int) -> int:
        return len(self.strokes[plane])

    def changed_since(self, plane: int, revision: int) -> tuple[slice, slice] | None:
        since = self.strokes[plane][revision:]
        if not since:
            return None
        rows, columns = (
            slice(min(part.start for part in parts), max(part.stop for part in parts))
            for parts in zip(*since, strict=True)
        )
        return rows, columns


@pytest.fixture
def painted() -> type[PaintedSource]:
    """Labels that tests paint."""
    return PaintedSource
