"""What is kept of each block between the search for pieces and their joining."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from napari_affmae.engine.objects.pieces import Pairs
from napari_affmae.engine.objects.sums import Rows
from napari_affmae.errors import UnreadableFileError
from napari_affmae.files import replace_bytes

#: An axis, -3 to -1, and whether the side is the far one.
Side = tuple[int, bool]


@dataclass(frozen=True)
class PieceRecord:
    """The pieces of a block.

    Attributes
    ----------
    rows : ndarray, (pieces,), SUMS
        Their sums.
    sides : mapping of (int, bool) to ndarray
        The numbers on those sides of the block that other blocks lie at.
    pairs : ndarray, (2, count), int64
        Pieces of neighbouring planes that lie on each other; none unless these are linked.
    pixels : ndarray, (count,), int64
        On how many pixels.
    """

    rows: Rows
    sides: Mapping[Side, NDArray[np.integer[Any]]]
    pairs: Pairs
    pixels: NDArray[np.int64]


class PieceRecords:
    """A file a block, in a folder.

    Parameters
    ----------
    folder : Path
        Need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, number: int, record: PieceRecord) -> None:
        """Keep what is known of a block, and wait until it is on the disk."""
        content = io.BytesIO()
        sides = {f"side {axis} {int(far)}": part for (axis, far), part in record.sides.items()}
        np.savez_compressed(
            content,
            allow_pickle=False,
            rows=record.rows,
            pairs=record.pairs,
            pixels=record.pixels,
            **sides,
        )
        replace_bytes(self._path(number), content.getvalue())

    def rows(self, number: int) -> Rows:
        """Return the sums of a block's pieces."""
        found: Rows = self._read(number, "rows")[0]
        return found

    def side(self, number: int, side: Side) -> NDArray[np.integer[Any]]:
        """Return the numbers on a side of a block."""
        axis, far = side
        return self._read(number, f"side {axis} {int(far)}")[0]

    def overlaps(self, number: int) -> tuple[Pairs, NDArray[np.int64]]:
        """Return which pieces lie on each other, and on how many pixels."""
        pairs, pixels = self._read(number, "pairs", "pixels")
        return pairs, pixels

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.npz"

    def _read(self, number: int, *names: str) -> list[NDArray[Any]]:
        """Read some of a block's arrays.

        Raises
        ------
        UnreadableFileError
            If they are lost or damaged.
        """
        path = self._path(number)
        try:
            with np.load(path) as file:
                return [file[name] for name in names]
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise UnreadableFileError(
                f"cannot read {path}, which an earlier run has left ({error}); overwrite the result"
            ) from error
