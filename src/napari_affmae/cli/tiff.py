"""OME-TIFF files that grow plane by plane."""

import math
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tifffile import OmeXml, TiffWriter

# A classic TIFF ends at 4 GiB; compressed data may turn out longer than it came.
_BIG = 3 * 2**30


class PlaneFile:
    """A compressed OME-TIFF, written plane by plane beside its place and renamed when complete.

    Use it as a context manager: leaving it by an exception removes what was written.

    Parameters
    ----------
    path : Path
        Where the complete file will be; a file that is there is replaced.
    planes : int
        How many planes will come.
    pixel_size : tuple[float, float] or None
        Row and column size of a pixel, nanometres.
    """

    def __init__(
        self, path: Path, planes: int, pixel_size: tuple[float, float] | None = None
    ) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.part")
        self._planes = planes
        self._written = 0
        self._pixel_size = pixel_size
        self._writer: TiffWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._written == self._planes and kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)

    def write(self, plane: NDArray[np.generic]) -> None:
        """Append one plane.

        Parameters
        ----------
        plane : ndarray, (height, width) or (channels, height, width)
            Each of the same shape and dtype.
        """
        description = None
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = TiffWriter(self._part, bigtiff=plane.nbytes * self._planes > _BIG)
            description = self._ome(plane)
        self._writer.write(
            plane,
            photometric="minisblack",
            compression="zlib",
            description=description,
            metadata=None,
        )
        self._written += 1

    def _ome(self, plane: NDArray[np.generic]) -> bytes:
        shape = (self._planes, *plane.shape)
        height, width = plane.shape[-2:]
        size = {}
        if self._pixel_size is not None:
            rows, columns = self._pixel_size
            size = {
                "PhysicalSizeX": columns,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": rows,
                "PhysicalSizeYUnit": "nm",
            }
        ome = OmeXml()
        ome.addimage(
            plane.dtype,
            shape,
            (math.prod(shape[:-2]), 1, 1, height, width, 1),
            axes="ZYX" if plane.ndim == 2 else "ZCYX",
            Name=self.path.name.split(".")[0],
            **size,
        )
        return ome.tostring().encode()
