"""A source with its rows in reverse order."""

from typing import Any

from numpy.typing import NDArray

from napari_affmae.data.sources.layout import Layout, plane_number
from napari_affmae.data.sources.source import ImageSource


class FlippedSource(ImageSource):
    """The planes of a source upside down, as IMOD shows MRC files.

    Parameters
    ----------
    source : ImageSource
        An image or stack; name, sizes and channels are its own.
    """

    def __init__(self, source: ImageSource) -> None:
        shape = (*source.plane_shape, source.n_channels, source.height, source.width)
        super().__init__(
            source.name,
            Layout(shape, source.layout.plane_axes + "CYX"),
            source.dtype,
            path=source.path,
            files=source.files,
            pixel_size=source.pixel_size,
            plane_distance=source.plane_distance,
            notes=source.notes,
        )
        self._source = source

    @property
    def place(self) -> str:
        """What messages about damage call the source."""
        return self._source.place

    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        *position, channels, rows, columns = index
        plane = plane_number(position, self.plane_shape)
        mirrored = slice(self.height - rows.stop, self.height - rows.start)
        part: NDArray[Any] = self._source.read(plane, mirrored, columns)[channels, ::-1]
        return part

    def close(self) -> None:
        """Close open files of the source; reading opens them again."""
        self._source.close()
