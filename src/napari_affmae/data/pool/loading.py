"""From a block of a plane to the bytes that lie in the pool."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.normalization.normalization import NormalizedSource
from napari_affmae.data.pool.blocks import Block

_INTEGERS = (np.uint8, np.int16, np.uint16)


@dataclass(frozen=True)
class Loaded:
    """A block, decoded.

    Attributes
    ----------
    pixels : ndarray, (channels, rows, columns)
        In the type of the pool.
    limits : ndarray, (channels, 4), float32
        What normalises them; see `NormalizedSource.raw_limits`.
    labels : ndarray, (rows, columns), uint8, or None
        Class indices, `UNLABELLED` where there is none.
    """

    pixels: NDArray[np.generic]
    limits: NDArray[np.float32]
    labels: NDArray[np.uint8] | None = None


def stored_type(sources: Sequence[NormalizedSource]) -> np.dtype[np.generic]:
    """Choose the type of pixels in the pool: their own, where all sources share one.

    Integers of 8 and 16 bits stay what they are, or become the type that holds
    all of them. Whatever else there is, and what is equalised, is scaled to 0..1
    in float32 when it is decoded.
    """
    if all(source.is_pointwise for source in sources):
        common = np.result_type(*{source.source.dtype for source in sources})
        for candidate in _INTEGERS:
            if np.can_cast(common, candidate):
                return np.dtype(candidate)
    return np.dtype(np.float32)


def load_pixels(
    source: NormalizedSource, block: Block, dtype: np.dtype[np.generic]
) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    """Read a block in the type of the pool, and what normalises it.

    Raises
    ------
    DataError
        If a sample of the source holds no finite value.
    UnreadableFileError
        If the file is damaged.
    """
    place = (block.plane, block.rows, block.columns)
    if dtype.kind == "f":
        return source.read_scaled(*place), source.scaled_limits()
    pixels = source.source.read(*place).astype(dtype, copy=False)
    return pixels, source.raw_limits()
