"""OME-TIFF files that grow plane by plane."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tifffile import OmeXml, TiffWriter

from napari_affmae.config import ORIGIN_NAMESPACE, LabelClass
from napari_affmae.data import ImageSource
from napari_affmae.data.sources.class_metadata import (
    class_annotation,
    class_channels,
    color_table,
)
from napari_affmae.engine.results.new_file import NewFile
from napari_affmae.engine.results.origin import Origin
from napari_affmae.files import write_errors

# OME's names of the axes that count planes, in the order assumed for unnamed axes.
_PLANE_AXES = "TZ"
# A classic TIFF ends at 4 GiB, and compression may make data longer.
_BIG = 3 * 2**30
_COLOR_MAP, _SHORT = 320, 3  # TIFF's numbers of the tag and of its type
_ONE_CHANNEL = 2  # axes of a plane without channels

_Tag = tuple[int, int, int, Any, bool]


class PlaneFile:
    """A compressed OME-TIFF, written plane by plane under another name and renamed when complete.

    Use it as a context manager: an exception removes what was written. One process at a
    time writes a file.

    Parameters
    ----------
    path : Path
        Where the complete file will be; a file that is there is replaced.
    planes : int or Sequence[int]
        Number of planes, or the number along each axis.
    pixel_size : tuple[float, float] or None
        Row and column size of a pixel, nanometres.
    plane_distance : float or None
        Nanometres from plane to plane.
    axes : str
        Letters of the axes that count planes; the last one changes fastest.
    origin : Origin, optional
        What the planes are computed from; written into the file.
    classes : sequence of LabelClass
        What the values of the planes mean, or their channels; written into the file.

    Raises
    ------
    UnwritableError
        If another process is writing the file, or it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        planes: int | Sequence[int],
        pixel_size: tuple[float, float] | None = None,
        plane_distance: float | None = None,
        *,
        axes: str = "Z",
        origin: Origin | None = None,
        classes: Sequence[LabelClass] = (),
    ) -> None:
        self.path = path
        self._new = NewFile(path)
        self._origin = origin
        self._classes = tuple(classes)
        shape = (planes,) if isinstance(planes, int) else tuple(planes)
        self._planes = prod(shape)
        self._shape, self._axes = _ome_axes(shape, axes)
        self._written = 0
        rows, columns = pixel_size or (None, None)
        self._sizes = {"X": columns, "Y": rows, "Z": plane_distance}
        self._writer: TiffWriter | None = None

    @classmethod
    def like(
        cls,
        path: Path,
        source: ImageSource,
        origin: Origin | None = None,
        classes: Sequence[LabelClass] = (),
    ) -> Self:
        """Make a file for as many planes as a source has, along the same axes.

        Parameters
        ----------
        path : Path
            Where the complete file will be.
        source : ImageSource
            The image that the planes are computed from.
        origin : Origin, optional
            All that they are computed from.
        classes : sequence of LabelClass
            What their values mean, or their channels.
        """
        layout = source.layout
        return cls(
            path,
            layout.plane_shape,
            source.pixel_size,
            source.plane_distance,
            axes=layout.plane_axes,
            origin=origin,
            classes=classes,
        )

    def __enter__(self) -> Self:
        self._new.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._writer is not None and self._written == self._planes:
                with write_errors(self.path):
                    self._writer.close()
                    self._new.commit()
            elif self._writer is not None:
                with suppress(OSError):  # what is not complete is removed
                    self._writer.close()
        finally:
            self._new.__exit__(kind, error, trace)

    def write(self, plane: NDArray[np.generic]) -> None:
        """Append one plane.

        Parameters
        ----------
        plane : ndarray, (height, width) or (channels, height, width)
            Each of the same shape and dtype.

        Raises
        ------
        DiskFullError
            If there is no room.
        """
        channels = plane if plane.ndim == 3 else plane[None]
        self._append(iter(channels), plane.shape, plane.dtype)

    def write_channels(self, channels: Iterator[NDArray[np.generic]], count: int) -> None:
        """Append one plane whose channels are not in memory together.

        Parameters
        ----------
        channels : iterator of ndarray, (height, width)
            Each of the same shape and dtype.
        count : int
            Number of channels.

        Raises
        ------
        DiskFullError
            If there is no room.
        """
        first = next(channels)
        self._append(chain([first], channels), (count, *first.shape), first.dtype)

    def _append(
        self, channels: Iterator[NDArray[np.generic]], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        with write_errors(self.path):
            description = None
            if self._writer is None:
                big = prod(shape) * dtype.itemsize * self._planes > _BIG
                self._writer = TiffWriter(self._new.open(), bigtiff=big)
                description = self._ome(shape, dtype)
            self._writer.write(
                channels,
                shape=shape,
                dtype=dtype,
                photometric="minisblack",
                compression="zlib",
                description=description,
                metadata=None,
                extratags=self._color_tags(dtype),
            )
        self._written += 1

    def _ome(self, plane: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
        shape = (*self._shape, *plane)
        height, width = plane[-2:]
        known = {axis: size for axis, size in self._sizes.items() if size is not None}
        ome = OmeXml()
        ome.addimage(
            dtype,
            shape,
            (prod(shape[:-2]), 1, 1, height, width, 1),
            axes=self._axes + "CYX"[-len(plane) :],
            Name=os.fsencode(self.path.name.split(".")[0]).decode("utf-8", "replace"),
            **self._annotations(plane),
            **{f"PhysicalSize{axis}": size for axis, size in known.items()},
            **{f"PhysicalSize{axis}Unit": "nm" for axis in known},
        )
        return ome.tostring().encode()

    def _annotations(self, plane: tuple[int, ...]) -> dict[str, object]:
        maps: list[dict[str, object]] = []
        if self._origin is not None:
            maps.append({"Namespace": ORIGIN_NAMESPACE, "Value": self._origin.texts()})
        if not self._classes:
            return {"MapAnnotation": maps}
        if len(plane) > _ONE_CHANNEL:
            return {"MapAnnotation": maps, "Channel": class_channels(self._classes)}
        return {"MapAnnotation": [*maps, class_annotation(self._classes)]}

    def _color_tags(self, dtype: np.dtype[Any]) -> list[_Tag]:
        """Tags of a page; ImageJ makes a stack only of pages that all have a table, or none."""
        table = color_table(self._classes)
        if not self._classes or table is None or dtype != np.uint8:
            return []
        return [(_COLOR_MAP, _SHORT, table.size, table.ravel().tolist(), True)]


def _ome_axes(shape: tuple[int, ...], axes: str) -> tuple[tuple[int, ...], str]:
    """Name the axes of planes as OME does; if there are too many, they are merged into one."""
    if len(shape) > len(_PLANE_AXES):
        return (prod(shape),), _PLANE_AXES[-1]
    known = len(set(axes)) == len(axes) and set(axes) <= set(_PLANE_AXES)
    return shape, axes if known else _PLANE_AXES[len(_PLANE_AXES) - len(shape) :]
