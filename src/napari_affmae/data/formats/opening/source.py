"""From a path or an array to an image source."""

import weakref
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.formats.files.handles import POOL, OpenFile, Part
from napari_affmae.data.formats.files.paths import shown
from napari_affmae.data.formats.opening.facts import FileFacts, look_into
from napari_affmae.data.formats.opening.file_index import FileIndex
from napari_affmae.data.formats.opening.recipe import FileRecipe, default_name, split_inner
from napari_affmae.data.sources.failures import failure
from napari_affmae.data.sources.layout import (
    CHANNEL_AXES,
    Layout,
    axes_of_planes,
    default_axes,
    parse_axes,
)
from napari_affmae.data.sources.source import ArrayLike, ArraySource, ImageSource, PixelSize
from napari_affmae.errors import UnreadableFileError

_PLACING = Lock()


class FileSource(ImageSource):
    """Planes of a file that is open only while a limited number of others are.

    Made by `open_source`. It can be pickled: the copy opens the file again when it
    is first read, in whatever process that is.
    """

    def __init__(
        self,
        recipe: FileRecipe,
        facts: FileFacts,
        *,
        path: Path,
        axes: str | None,
        channels: int | Sequence[int] | None,
        name: str,
        pixel_size: PixelSize | None = None,
    ) -> None:
        layout = _layout(path, facts, axes, name)
        notes = list(facts.notes)
        if channels is None and (alpha := _alpha(facts, layout)):
            channels = [n for n in range(layout.n_channels) if n not in alpha]
            named = ", ".join(map(str, alpha))
            notes.append(f"channel {named} is transparency, which is not read")
        if axes is None and channels is None and (wanted := axes_of_planes(layout)):
            notes.append(
                f"has {layout.n_channels} channels; if these are planes of a stack, save it "
                f"as such, or open it with the axes {wanted}"
            )
        super().__init__(
            name,
            layout,
            facts.dtype,
            path=path,
            files=facts.files,
            pixel_size=pixel_size or facts.pixel_size,
            plane_distance=_plane_distance(facts, layout.axes),
            channels=channels,
            notes=notes,
            classes=facts.classes,
            content=facts.content,
        )
        self._recipe = recipe
        self._number: int | None = None

    @property
    def place(self) -> str:
        """The file, or the address of the web as it was given."""
        return shown(super().place)

    @property
    def _key(self) -> int:
        """Its place in the pool of open files; of thousands, few are read and need one."""
        with _PLACING:
            if self._number is None:
                self._number = POOL.new_key()
                weakref.finalize(self, POOL.discard, self._number)
            return self._number

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_number": None}

    def _reopen(self) -> OpenFile:
        file = self._recipe.open()
        if file.shape != self.layout.shape or file.dtype != self.stored_dtype:
            file.close()
            raise UnreadableFileError(f"{self.place} changed since it was opened")
        return file

    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        def part() -> NDArray[Any]:
            with POOL.use(self._key, self._reopen) as file:
                return np.asarray(file.array[index])

        return POOL.with_room(part)

    def stored_parts(self, most: int) -> list[tuple[int, slice, slice]] | None:
        """List parts of planes that are stored; see `ImageSource.stored_parts`."""

        def listed() -> list[Part] | None:
            with POOL.use(self._key, self._reopen) as file:
                return None if file.stored is None else list(islice(file.stored(), most))

        try:
            chunks = POOL.with_room(listed)
        except OSError as error:
            raise failure(error, f"cannot read {self.place}") from error
        if chunks is None:
            return None
        parts = (part for chunk in chunks for part in self.layout.parts(chunk))
        return list(islice(parts, most))

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        POOL.discard(self._key)


def _layout(path: Path, file: FileFacts, axes: str | None, name: str) -> Layout:
    """Lay a file out by the axes that the user named, or by its own."""
    if axes is not None:
        return Layout(file.shape, parse_axes(axes, file.shape, name))
    try:
        return Layout(file.shape, file.axes or default_axes(file.shape, file.dtype))
    except ValueError as error:
        raise UnreadableFileError(
            f"cannot read {shown(path)}: {error}; name its axes in the file, or when it is opened"
        ) from error


def _alpha(file: FileFacts, layout: Layout) -> Sequence[int]:
    """Return the channels of transparency; none if others are channels than the file says."""
    mine, its = ([axis in CHANNEL_AXES for axis in axes] for axes in (layout.axes, file.axes or ""))
    return file.alpha if mine == its and len(file.alpha) < layout.n_channels else ()


def _plane_distance(file: FileFacts, axes: str) -> float | None:
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
    index: FileIndex | None = None,
) -> ImageSource:
    """Open an image, a stack or an array, without reading its pixels.

    Parameters
    ----------
    data : str, Path, or array of numpy, dask or zarr
        Files: TIFF (OME, ImageJ, BigTIFF), PNG, JPEG, BMP, MRC, DM3, DM4, SER,
        NRRD, NIfTI, ``.npy``, HDF5 (``file.h5:/dataset`` chooses), N5, and OME-Zarr or
        zarr in folders, in one file, or on the web (``folder.zarr:/name`` chooses).
    axes : str, optional
        One letter for each axis, such as ``"ZYX"`` or ``"YXC"``: Y and X are
        rows and columns, C and S channels, every other axis counts planes.
        Without it the file's own metadata decide, and where there are none the
        last two axes are YX, except that a last axis of 3 or 4 uint8 samples
        is colour.
    channels : int or sequence of int, optional
        Channels to use; by default all but those of transparency (alpha).
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
    labels : bool
        Whether the values of a file are classes. Then a TIFF, PNG or BMP with a
        table of colours is read as the numbers in that table, and none is
        inverted because its 0 is white; and `sparse` is True by default.
    index : FileIndex, optional
        What is known of files already; those are opened only when they are read.

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
        path = split_inner(str(data))[0]
        if labels and sparse is None:
            sparse = True  # writers leave out what is all background
        recipe = FileRecipe.of(str(data), sparse=sparse, outside=outside, labels=labels)
        path = recipe.path if path == recipe.path else path  # one object, not two equal ones
        return FileSource(
            recipe,
            look_into(recipe, path) if index is None else index.facts(recipe, path),
            path=path,
            axes=axes,
            channels=channels,
            name=name or default_name(data),
            pixel_size=pixel_size,
        )
    if all(hasattr(data, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        return ArraySource(data, axes=axes, channels=channels, name=name, pixel_size=pixel_size)
    raise TypeError(f"an image is a path or an array, got {type(data).__name__}")
