"""From a path or an array to an image source."""

import weakref
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.formats.containers import is_image
from napari_affmae.data.formats.handles import POOL, OpenFile
from napari_affmae.data.formats.recipe import FileRecipe, default_name, split_inner
from napari_affmae.data.sources.layout import CHANNEL_AXES, Layout, default_axes, parse_axes
from napari_affmae.data.sources.source import ArrayLike, ArraySource, ImageSource, PixelSize
from napari_affmae.errors import UnreadableFileError


class FileSource(ImageSource):
    """Planes of a file that is open only while a limited number of others are.

    Made by `open_source`. It can be pickled: the copy opens the file again when it
    is first read, in whatever process that is.
    """

    def __init__(
        self,
        recipe: FileRecipe,
        *,
        path: Path,
        axes: str | None,
        channels: int | Sequence[int] | None,
        name: str,
        pixel_size: PixelSize | None,
    ) -> None:
        with closing(POOL.with_room(recipe.open)) as file:
            if not is_image(file.shape, file.dtype):
                raise UnreadableFileError(
                    f"{path} holds no image: shape {file.shape}, dtype {file.dtype}"
                )
            layout = _layout(path, file, axes, name)
            super().__init__(
                name,
                layout,
                file.dtype,
                path=path,
                files=file.files,
                pixel_size=pixel_size or file.pixel_size,
                plane_distance=_plane_distance(file, layout.axes),
                channels=channels,
                notes=file.notes,
                content=file.content,
            )
        self._recipe = recipe
        self._join_pool()

    def _join_pool(self) -> None:
        self._key = POOL.new_key()
        weakref.finalize(self, POOL.discard, self._key)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_key"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._join_pool()

    def _reopen(self) -> OpenFile:
        file = self._recipe.open()
        if file.shape != self.layout.shape or file.dtype != self.stored_dtype:
            file.close()
            raise UnreadableFileError(f"{self.path} changed since it was opened")
        return file

    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        def part() -> NDArray[Any]:
            with POOL.use(self._key, self._reopen) as file:
                return np.asarray(file.array[index])

        return POOL.with_room(part)

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        POOL.discard(self._key)


def _layout(path: Path, file: OpenFile, axes: str | None, name: str) -> Layout:
    """Lay a file out by the axes that the user named, or by its own."""
    if axes is not None:
        return Layout(file.shape, parse_axes(axes, file.shape, name))
    try:
        return Layout(file.shape, file.axes or default_axes(file.shape, file.dtype))
    except ValueError as error:
        raise UnreadableFileError(
            f"cannot read {path}: {error}; name its axes in the file, or when it is opened"
        ) from error


def _plane_distance(file: OpenFile, axes: str) -> float | None:
    """Distance of planes, unless they are said to follow each other along another axis than Z."""
    counting = axes.translate(dict.fromkeys(map(ord, f"YX{CHANNEL_AXES}")))
    return file.plane_distance if counting.endswith(("Z", "I")) else None


def open_source(
    data: str | Path | ArrayLike,
    *,
    axes: str | None = None,
    channels: int | Sequence[int] | None = None,
    name: str | None = None,
    pixel_size: PixelSize | None = None,
    sparse: bool | None = None,
    outside: bool = False,
    labels: bool = False,
) -> ImageSource:
    """Open an image, a stack or an array, without reading its pixels.

    Parameters
    ----------
    data : str, Path, or array of numpy, dask or zarr
        Files: TIFF (OME, ImageJ, BigTIFF), PNG, JPEG, MRC, HDF5
        (``file.h5:/dataset`` chooses) and OME-Zarr or zarr folders
        (``folder.zarr:/array`` chooses).
    axes : str, optional
        One letter for each axis, such as ``"ZYX"`` or ``"YXC"``: Y and X are
        rows and columns, C and S channels, every other axis counts planes.
        Without it the file's own metadata decide, and where there are none the
        last two axes are YX, except that a last axis of 3 or 4 uint8 samples
        is colour.
    channels : int or sequence of int, optional
        Channels to use; all by default.
    name : str, optional
        What messages call it; the file's name by default.
    pixel_size : (float, float), optional
        (row, column) in nanometres; by default what the file says, if it does.
    sparse : bool, optional
        A zarr folder may hold no chunk of a plane, because it is empty or because
        it was lost. Such planes are read as the fill value, and the log says so;
        with True, as for labels, it does not, and with False reading them is an
        error.
    outside : bool, optional
        A TIFF or an HDF5 file may name other files that hold parts of it. Those in
        its folder are read; with this, those anywhere else are read too, and
        without it such a file is refused.
    labels : bool, optional
        The file holds labels: of a picture with a colour table the numbers are read,
        not the colours, and `sparse` is True by default.

    Returns
    -------
    ImageSource

    Raises
    ------
    UnreadableFileError
        If the file is missing, damaged, cut short or of an unknown kind; a
        `FileAccessError` if the system does not give it.
    SystemLimitError
        If memory or open files run out.
    ValueError
        If `axes` or `channels` do not fit.
    TypeError
        If `data` is neither a path nor an array, or its elements are no real numbers.
    """
    if isinstance(data, str | Path):
        return FileSource(
            FileRecipe.of(
                str(data),
                # Writers leave out what is all background.
                sparse=True if labels and sparse is None else sparse,
                outside=outside,
                labels=labels,
            ),
            path=split_inner(str(data))[0],
            axes=axes,
            channels=channels,
            name=name or default_name(data),
            pixel_size=pixel_size,
        )
    if all(hasattr(data, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        return ArraySource(data, axes=axes, channels=channels, name=name, pixel_size=pixel_size)
    raise TypeError(f"an image is a path or an array, got {type(data).__name__}")
