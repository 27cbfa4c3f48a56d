"""Encodes shards of zarr arrays.

zarr makes several tasks of an event loop for each chunk. While a network runs on a fast GPU, these
take the interpreter lock for longer than all else together; here compression, which needs no lock,
is all of the work.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import compress
from numpy.typing import NDArray

from napari_affmae.engine.results.plan import Shape

#: As `StoredArray.create` writes into the array's metadata.
ZSTD_LEVEL = 3
_THREADS = os.cpu_count() or 1
_COMPRESSORS = ThreadPoolExecutor(_THREADS, thread_name_prefix="affmae-compress")
# The index has this where a chunk is not stored.
_ABSENT = 2**64 - 1


def encode_shard(values: NDArray[Any], chunk: Shape, shard: Shape) -> list[bytes]:
    """Encode a shard: chunks, little-endian and compressed by Zstandard, and an index behind them.

    Parameters
    ----------
    values : ndarray
        The shard; at the far border of an array it may be cut.
    chunk, shard : tuple of int
        Size of its chunks, and of the whole shard.

    Returns
    -------
    list of bytes
        The parts of the file, in their order.
    """
    counts = tuple(whole // part for whole, part in zip(shard, chunk, strict=True))
    there = (range(-(-size // part)) for size, part in zip(values.shape, chunk, strict=True))
    places = list(product(*there))

    def encode(part: NDArray[np.intp]) -> list[bytes]:
        return [_encoded(values, places[number], chunk) for number in part]

    # A few calls for all chunks: each costs the lock.
    parts = np.array_split(np.arange(len(places)), min(_THREADS, len(places)))
    encoded = [one for several in _COMPRESSORS.map(encode, parts) for one in several]
    sizes = np.array([len(one) for one in encoded], np.uint64)
    index = np.full((*counts, 2), _ABSENT, "<u8")
    stored = index[tuple(map(slice, np.add(places[-1], 1)))]
    stored[:] = np.stack([np.cumsum(sizes) - sizes, sizes], axis=1).reshape(stored.shape)
    content = index.tobytes()
    return [*encoded, content, google_crc32c.value(content).to_bytes(4, "little")]


def _encoded(values: NDArray[Any], place: Shape, chunk: Shape) -> bytes:
    """Encode a chunk, filled with zeros where the array ends."""
    corner = [number * side for number, side in zip(place, chunk, strict=True)]
    part = values[tuple(slice(n, n + side) for n, side in zip(corner, chunk, strict=True))]
    if part.shape != chunk:
        missing = [(0, side - size) for side, size in zip(chunk, part.shape, strict=True)]
        part = np.pad(part, missing)
    plain = np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<"))
    encoded: bytes = compress(plain, ZSTD_LEVEL)
    return encoded
