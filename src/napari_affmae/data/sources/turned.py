"""A volume seen from another side: its planes lie along its rows or its columns."""

from threading import Condition
from typing import Any, Literal

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray

from napari_affmae.data.sources.layout import Layout
from napari_affmae.data.sources.source import ImageSource, PixelSize
from napari_affmae.errors import DataError

Along = Literal["Y", "X"]

# Planes of this source cross many planes of the other one: what is read of them is kept.
_BYTES = 2**29
_MOST_PLANES = 32
_ROWS, _COLUMNS = 256, 512


class TurnedSource(ImageSource):
    """The planes of a volume that cross its own; their rows are the volume's planes.

    Parameters
    ----------
    source : ImageSource
        The volume.
    along : "Y" or "X"
        Whether planes follow each other along the volume's rows, so that their columns are its
        columns, or along its columns, so that their columns are its rows.

    Raises
    ------
    DataError
        If the source is no single volume.
    """

    def __init__(self, source: ImageSource, along: Along) -> None:
        if len(source.plane_shape) != 1 or source.n_planes < 2 or source.layout.plane_axes == "T":
            raise DataError(
                f"{source.name} is no volume of planes along one axis Z, which other directions "
                "need; name its axes, or predict along one direction"
            )
        planes, across = source.height, source.width
        if along == "X":
            planes, across = across, planes
        shape = (planes, source.n_channels, source.n_planes, across)
        rows, columns = source.pixel_size or (None, None)
        apart, beside = (rows, columns) if along == "Y" else (columns, rows)
        size: PixelSize | None = None
        if source.plane_distance is not None and beside is not None:
            size = (source.plane_distance, beside)
        super().__init__(
            source.name,
            Layout(shape, "ZCYX"),
            source.dtype,
            path=source.path,
            files=source.files,
            pixel_size=size,
            plane_distance=apart,
        )
        self._source = source
        self._along = along
        plane = source.dtype.itemsize * source.n_channels * source.n_planes * across
        # Two blocks are read at a time, which may need as many planes.
        self._thick = max(1, min(_MOST_PLANES, _BYTES // (2 * plane)))
        self._cell = cached(
            LRUCache(_BYTES, getsizeof=lambda cell: int(cell.nbytes)), condition=Condition()
        )(self._read_cell)

    def __reduce__(self) -> tuple[Any, ...]:
        # What was read does not travel to other processes.
        return type(self), (self._source, self._along)

    @property
    def place(self) -> str:
        """What messages about damage call the source."""
        return self._source.place

    def fingerprint(self) -> str:
        """Return the source's hash, and from which side it is seen."""
        return f"{self._source.fingerprint()} along {self._along}"

    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        plane, channels, rows, columns = index
        group, number = divmod(plane, self._thick)
        strips = []
        for row in range(rows.start // _ROWS, -(-rows.stop // _ROWS)):
            cells = [
                self._cell(group, row, column)[number]
                for column in range(columns.start // _COLUMNS, -(-columns.stop // _COLUMNS))
            ]
            strips.append(np.concatenate(cells, axis=2))
        whole = np.concatenate(strips, axis=1)
        top = rows.start - rows.start // _ROWS * _ROWS
        left = columns.start - columns.start // _COLUMNS * _COLUMNS
        height, width = rows.stop - rows.start, columns.stop - columns.start
        part: NDArray[Any] = whole[channels, top : top + height, left : left + width]
        return part

    def _read_cell(self, group: int, row: int, column: int) -> NDArray[Any]:
        """Read a piece of some planes, (planes, channels, rows, columns)."""
        along = slice(group * self._thick, (group + 1) * self._thick)
        across = slice(column * _COLUMNS, (column + 1) * _COLUMNS)
        rows, columns = (along, across) if self._along == "Y" else (across, along)
        planes = range(row * _ROWS, min((row + 1) * _ROWS, self._source.n_planes))
        block = np.stack([self._source.read(plane, rows, columns) for plane in planes])
        # (the volume's planes, channels, its rows, its columns)
        order = (2, 1, 0, 3) if self._along == "Y" else (3, 1, 0, 2)
        cell: NDArray[Any] = np.ascontiguousarray(block.transpose(order))
        return cell

    def close(self) -> None:
        """Close open files of the source; reading opens them again."""
        self._source.close()
