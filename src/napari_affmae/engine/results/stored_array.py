"""A zarr array on the disk that is written shard by shard."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from napari_affmae.engine.results.plan import Box, Shape
from napari_affmae.engine.results.shard import ZSTD_LEVEL, encode_shard
from napari_affmae.files import remove_leftovers, replace_bytes, write_errors


class StoredArray:
    """A sharded array; several threads may read it and write shards of their own.

    Parameters
    ----------
    folder : Path
        What `create` has made.

    Attributes
    ----------
    dtype : numpy.dtype
        Type of the elements.

    Raises
    ------
    FileNotFoundError
        If there is no array.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._array = zarr.open_array(folder, mode="r")
        self._shard = self._array.shards or self._array.chunks
        self.dtype = np.dtype(self._array.dtype)

    @staticmethod
    def create(
        group: zarr.Group,
        name: str,
        dtype: np.dtype[Any],
        *,
        shape: Shape,
        chunk: Shape,
        shard: Shape,
        axes: tuple[str, ...],
    ) -> None:
        """Make an array in a group, with nothing in it."""
        group.create_array(
            name,
            shape=shape,
            chunks=chunk,
            shards=shard,
            dtype=dtype,
            fill_value=0,
            compressors=ZstdCodec(level=ZSTD_LEVEL),
            dimension_names=axes,
        )

    def read(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read a part, by integers and slices."""
        return np.asarray(self._array[index])

    def write(self, box: Box, values: NDArray[Any]) -> None:
        """Write a whole shard, and wait until it is on the disk.

        It is there whole or not at all, also where two processes write the same. One that holds
        only zeros is stored too: what is absent was not written, or lost.

        Parameters
        ----------
        box : tuple of slice
            The part of the array that the shard is, which ends at the array's border.
        values : ndarray
            Of the same shape.

        Raises
        ------
        DiskFullError
            If there is no room.
        UnwritableError
            If it cannot be written for another reason.
        """
        values = values.astype(self.dtype, copy=False)
        replace_bytes(self._file(box), *encode_shard(values, self._array.chunks, self._shard))

    def clear(self, box: Box) -> None:
        """Remove what a kill has left of a shard."""
        file = self._file(box)
        with write_errors(file):
            self.tidy(box)
            file.unlink(missing_ok=True)

    def tidy(self, box: Box) -> None:
        """Remove what processes that were killed had begun to write of a shard."""
        file = self._file(box)
        if file.parent.is_dir():
            remove_leftovers(file)

    def _file(self, box: Box) -> Path:
        place = tuple(part.start // side for part, side in zip(box, self._shard, strict=True))
        return self._folder / self._array.metadata.encode_chunk_key(place)
