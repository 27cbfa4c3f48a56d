"""Zarr arrays that say when a plane is not stored, since it may have been lost.

A zarr store leaves out chunks that hold nothing but the fill value. So an absent
chunk may be empty or lost, and zarr reads both as the fill value.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from napari_affmae.data.formats.files.paths import is_regular

logger = logging.getLogger(__name__)

_TRIES = 3

# Keys that the store did not find during a read, which zarr does in another thread.
_MISSED: ContextVar[list[str] | None] = ContextVar("missed", default=None)


class WatchedStore(WrapperStore[LocalStore]):
    """A folder that notes what it is asked for and does not hold."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what is stored under a key; None where nothing is."""
        value = await super().get(key, prototype, byte_range)
        missed = _MISSED.get()
        if value is None and missed is not None:
            missed.append(key)
        return value


def open_folder(folder: Path) -> zarr.Array[Any] | zarr.Group:
    """Open a zarr folder so that `StoredPlanes` learns what is absent."""
    return zarr.open(WatchedStore(LocalStore(folder, read_only=True)), mode="r")


class StoredPlanes:
    """A zarr array that does not make up planes in silence.

    A plane of which some chunks are stored is taken as it is: its other chunks hold
    the fill value. Of sharded arrays, the shards count.

    Parameters
    ----------
    array : zarr.Array
        From `open_folder`.
    folder : Path
        That was opened.
    sparse : bool or None
        Whether planes without a stored chunk are meant to be of the fill value. None
        takes them for that, and logs a warning at the first one.
    """

    def __init__(self, array: "zarr.Array[Any]", folder: Path, *, sparse: bool | None) -> None:
        self.shape: tuple[int, ...] = array.shape
        self.chunks: tuple[int, ...] = array.chunks
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.nbytes = int(array.nbytes)
        self._array = array
        self._root = folder
        self._folder = folder / array.store_path.path
        self._metadata = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
        self._sparse = sparse
        self._grid = array.shards or array.chunks
        self._known: set[tuple[int, ...]] = set()

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read by one integer for each axis that counts planes, and slices for the others.

        Raises
        ------
        FileNotFoundError
            If the array is gone.
        ValueError
            If nothing of the plane is stored, and `sparse` is False.
        """
        for _ in range(_TRIES):
            with _watching() as missed:
                block = np.asarray(self._array[index])
            if not missed or self._is_absent(missed):
                if missed and not self._sparse:
                    self._look_at_plane(index)
                return block
        raise ValueError(
            "parts of it come and go; wait until no program writes it and its disk is there"
        )

    def stored_chunks(self) -> Iterator[tuple[slice, ...]]:
        """List the chunks, of sharded arrays the shards, that lie in the folder.

        Yields
        ------
        tuple of slice
            One for each axis; in the order in which the system lists the files.
        """
        for folder, _, files in os.walk(self._folder):
            below = Path(folder).relative_to(self._folder)
            for file in files:
                numbers = [int(number) for number in re.findall(r"\d+", str(below / file))]
                if len(numbers) == len(self.shape):  # not the metadata
                    yield tuple(
                        slice(number * side, min((number + 1) * side, size))
                        for number, side, size in zip(numbers, self._grid, self.shape, strict=True)
                    )

    def _is_absent(self, missed: list[str]) -> bool:
        """Whether chunks that were not found are still not there, although the array is."""
        if not is_regular(self._folder / self._metadata):
            raise FileNotFoundError(
                f"its array {self._folder} is gone; bring back its folder or its disk"
            )
        return not any(is_regular(self._root / key) for key in missed)

    def _look_at_plane(self, index: tuple[Any, ...]) -> None:
        """Say, or refuse, that nothing of a plane is stored."""
        sides = list(zip(index, self.shape, self._grid, strict=True))
        position = tuple(
            int(part) // grid for part, _, grid in sides if not isinstance(part, slice)
        )
        if position in self._known:
            return
        ranges = [
            range(-(-size // grid)) if isinstance(part, slice) else (int(part) // grid,)
            for part, size, grid in sides
        ]
        encode = self._array.metadata.encode_chunk_key
        if any(is_regular(self._folder / encode(place)) for place in product(*ranges)):
            self._known.add(position)
        elif self._sparse is None:
            self._sparse = True
            logger.warning(
                "%s: nothing of plane %s is stored, so it is read as empty, as others may be. If "
                "it was lost, bring back its folder or its disk and start again",
                self._folder,
                ", ".join(str(part) for part in index if not isinstance(part, slice)),
            )
        else:
            raise ValueError(
                "none of its chunks is stored: it was lost, or never written. Bring back its "
                "folder or its disk; if it is empty on purpose, store it (in zarr-python with "
                "write_empty_chunks), or leave it out"
            )


@contextmanager
def _watching() -> Iterator[list[str]]:
    missed: list[str] = []
    token = _MISSED.set(missed)
    try:
        yield missed
    finally:
        _MISSED.reset(token)
