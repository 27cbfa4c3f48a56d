"""A part of a source, seen as a source."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from napari_affmae.data.sources.layout import Layout, plane_number
from napari_affmae.data.sources.source import ImageSource, bounded, shifted


class WindowSource(ImageSource):
    """Some planes of a source, or a rectangle of them; made by `window`.

    Parameters
    ----------
    source : ImageSource
        The source that it is cut from, which may be a window itself.
    planes : sequence of int or None
        Planes of the source, in this order; None for all.
    rows, columns : slice
        The rectangle, with start and stop inside the source.
    """

    def __init__(
        self, source: ImageSource, planes: Sequence[int] | None, rows: slice, columns: slice
    ) -> None:
        # The axes that count planes are kept only if all planes are.
        counts = source.plane_shape if planes is None else (len(planes),)
        shape = (*counts, source.n_channels, rows.stop - rows.start, columns.stop - columns.start)
        super().__init__(
            source.name,
            Layout(shape, "I" * len(counts) + "CYX"),
            source.dtype,
            path=source.path,
            files=source.files,
            pixel_size=source.pixel_size,
            plane_distance=source.plane_distance if planes is None else None,
            notes=source.notes,
            classes=source.classes,
        )
        self._source = source
        self._planes = range(source.n_planes) if planes is None else planes
        self._row, self._column = rows.start, columns.start

    @property
    def whole(self) -> ImageSource:
        """The source that this one was cut from, which is no window."""
        return self._source.whole

    def locate(self, plane: int, rows: slice, columns: slice) -> tuple[int, slice, slice]:
        """Say where a part of one plane lies in `whole`; see `ImageSource.locate`."""
        return self._source.locate(*self._shifted(*self._bounded(plane, rows, columns)))

    def _shifted(self, plane: int, rows: slice, columns: slice) -> tuple[int, slice, slice]:
        return self._planes[plane], shifted(rows, self._row), shifted(columns, self._column)

    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        *position, channels, rows, columns = index
        plane = plane_number(position, self.plane_shape)
        block = self._source.read(*self._shifted(plane, rows, columns))
        part: NDArray[Any] = block[channels]
        return part

    def close(self) -> None:
        """Close open files of the source; reading opens them again."""
        self._source.close()


def window(
    source: ImageSource,
    *,
    planes: slice | Sequence[int] | None = None,
    rows: slice | None = None,
    columns: slice | None = None,
) -> ImageSource:
    """Take a part of a source; nothing is read before it is asked for.

    Name, pixel size and channels are the source's. Normalisation too: a pixel
    of the window gets the value that it has in the whole, see
    `normalize_sources`.

    Parameters
    ----------
    source : ImageSource
        An image or stack.
    planes : slice or sequence of int, optional
        Which planes, in this order; all by default.
    rows, columns : slice, optional
        The rectangle, of step 1; clipped to the plane as numpy does. All by
        default.

    Returns
    -------
    ImageSource
        Its planes, rows and columns count from 0.

    Raises
    ------
    ValueError
        If nothing is left, a plane is not there, or a step is not 1.
    """
    chosen = None if planes is None else _choose_planes(source, planes)
    return WindowSource(
        source,
        chosen,
        _cut(source, "rows", rows, source.height),
        _cut(source, "columns", columns, source.width),
    )


def _choose_planes(source: ImageSource, planes: slice | Sequence[int]) -> Sequence[int]:
    total = source.n_planes
    chosen = range(total)[planes] if isinstance(planes, slice) else tuple(map(int, planes))
    if not chosen:
        raise ValueError(f"no plane of {source.name} is chosen; it has {total}, got {planes}")
    wrong = [plane for plane in chosen if not 0 <= plane < total]
    if wrong:
        raise ValueError(f"{source.name} has planes 0 to {total - 1}, asked for {wrong[0]}")
    return chosen


def _cut(source: ImageSource, axis: str, part: slice | None, size: int) -> slice:
    cut = bounded(slice(None) if part is None else part, size)
    if cut.start == cut.stop:
        raise ValueError(f"the window holds no {axis} of {source.name}, which has {size}: {part}")
    return cut
