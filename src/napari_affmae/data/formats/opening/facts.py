"""What is known of an image file before its pixels are read."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_affmae.config import LabelClass
from napari_affmae.data.formats.files.handles import POOL, OpenFile
from napari_affmae.data.formats.files.paths import shown
from napari_affmae.data.formats.metadata.containers import is_image
from napari_affmae.data.formats.opening.recipe import FileRecipe
from napari_affmae.data.sources.source import Content, PixelSize
from napari_affmae.errors import UnreadableFileError


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What opening a file has told.

    Attributes
    ----------
    shape : tuple of int
        Of the array.
    dtype : numpy.dtype
        Of its elements.
    axes, pixel_size, plane_distance, notes, files, alpha, lacks_others, classes, content
        See `OpenFile`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str | None = None
    pixel_size: PixelSize | None = None
    plane_distance: float | None = None
    notes: Sequence[str] = ()
    files: Sequence[Path] = ()
    alpha: Sequence[int] = ()
    lacks_others: bool = False
    classes: Sequence[LabelClass] = ()
    content: Content = "image"

    @classmethod
    def of(cls, file: OpenFile) -> Self:
        """Take them from an open file."""
        return cls(
            file.shape,
            file.dtype,
            file.axes,
            file.pixel_size,
            file.plane_distance,
            tuple(file.notes),
            tuple(file.files),
            tuple(file.alpha),
            file.lacks_others,
            tuple(file.classes),
            file.content,
        )


def look_into(recipe: FileRecipe, path: Path) -> FileFacts:
    """Open a file, and close it again.

    Parameters
    ----------
    recipe : FileRecipe
        How it is opened.
    path : Path
        What messages call it.

    Raises
    ------
    UnreadableFileError
        If it cannot be read, or holds no image.
    SystemLimitError
        If memory or open files run out.
    """
    with closing(POOL.with_room(recipe.open)) as file:
        if not is_image(file.shape, file.dtype):
            raise UnreadableFileError(
                f"{shown(path)} holds no image: shape {file.shape}, dtype {file.dtype}"
            )
        return FileFacts.of(file)
