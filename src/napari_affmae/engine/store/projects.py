"""What was painted, kept on disk beside the runs: strokes, classes, image and model.

::

    project.json   the image, the classes, and the models
    labels/        the strokes, a zarr array with a chunk for each square of 256 pixels
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from napari_affmae.config import Classes, Settings
from napari_affmae.engine.store.records import Moment, moment, reason
from napari_affmae.errors import CheckpointError
from napari_affmae.files import parse_json, replace_bytes, write_errors

if TYPE_CHECKING:
    import zarr

logger = logging.getLogger(__name__)

#: Folder of the projects in the folder of runs.
PROJECTS = "painted"
PROJECT_FILE = "project.json"
_LABELS = "labels"
#: Side of a chunk in pixels: what is painted is written by squares of this size.
CHUNK = 256


class Project(Settings):
    """An image and what was painted on it.

    Attributes
    ----------
    image : str
        Name of the image's layer.
    path : str or None
        Its file; None if it has none.
    shape : tuple of int
        Of the image and of the labels.
    scale : tuple of float
        Size of a pixel along each axis, in `units`.
    units : tuple of str
        Unit of each axis.
    classes : tuple of LabelClass
        The classes.
    ignore_value : int or None
        The label value that means unknown.
    start_from, model : str or None
        The model that training started from, and the model that was saved last.
    changed : str
        Date and time of the last change.
    pixels : int
        Number of painted pixels.
    """

    format: Literal[1] = 1
    image: str
    path: str | None
    shape: tuple[int, ...] = Field(min_length=2)
    scale: tuple[float, ...]
    units: tuple[str, ...]
    classes: Classes
    ignore_value: int | None
    start_from: str | None
    model: str | None
    changed: Moment
    pixels: int = Field(ge=0)


@dataclass(frozen=True)
class Kept:
    """A project and its folder."""

    folder: Path
    project: Project

    @property
    def changed(self) -> datetime:
        """When it was changed last."""
        return moment(self.project.changed)


def list_projects(runs: Path) -> list[Kept]:
    """List the projects in a folder of runs, the newest first; what is damaged is logged.

    Parameters
    ----------
    runs : Path
        Folder of runs; it may be missing.
    """
    folder = runs / PROJECTS
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (path / PROJECT_FILE).is_file():
            try:
                found.append(Kept(path, read_project(path)))
            except CheckpointError as error:
                logger.warning("%s", error)
    return sorted(found, key=lambda kept: kept.changed, reverse=True)


def read_project(folder: Path) -> Project:
    """Read what a project is.

    Raises
    ------
    CheckpointError
        If it cannot be read or is damaged.
    """
    path = folder / PROJECT_FILE
    try:
        return Project.model_validate(parse_json(path.read_bytes()))
    except ValidationError as error:
        raise CheckpointError(f"cannot read {path}: {reason(error)}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def write_project(folder: Path, project: Project) -> None:
    """Write what a project is; its strokes are written by `write_strokes`.

    Raises
    ------
    UnwritableError
        If it cannot be written.
    """
    replace_bytes(folder / PROJECT_FILE, project.model_dump_json(indent=1).encode())


def write_strokes(
    folder: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    blocks: Iterable[tuple[tuple[int | slice, ...], NDArray[Any]]],
) -> None:
    """Write parts of the labels. Each chunk is written beside its place and renamed.

    Parameters
    ----------
    folder : Path
        Folder of the project.
    shape : tuple of int
        Shape of all labels.
    dtype : dtype
        Type of their values. Labels of another shape or type that are there are replaced.
    blocks : iterable of (index, array)
        The parts; squares of the grid of `CHUNK` touch no other chunks.

    Raises
    ------
    UnwritableError
        If they cannot be written.
    """
    import zarr  # noqa: PLC0415 - the window, which takes names from here, would wait for it

    path = folder / _LABELS
    with write_errors(path):
        labels = zarr.open_array(path, mode="r+") if path.exists() else None
        if labels is None or labels.shape != shape or labels.dtype != dtype:
            chunks = (*(1 for _ in shape[:-2]), *(min(CHUNK, size) for size in shape[-2:]))
            labels = zarr.create_array(
                path, shape=shape, chunks=chunks, dtype=dtype, fill_value=0, overwrite=True
            )
        for index, block in blocks:
            labels[index] = block


def read_strokes(folder: Path, project: Project) -> "zarr.Array[Any]":
    """Open the labels of a project.

    Parameters
    ----------
    folder : Path
        Folder of the project.
    project : Project
        Read from it.

    Returns
    -------
    zarr.Array
        Of the project's shape and an integer type; values are read when they are asked for.

    Raises
    ------
    CheckpointError
        If there are none, or of another shape.
    """
    import zarr  # noqa: PLC0415 - likewise

    path = folder / _LABELS
    try:
        labels = zarr.open_array(path, mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read the strokes in {path}: {error}") from error
    if labels.shape != project.shape or labels.dtype.kind not in "ui":
        raise CheckpointError(
            f"the strokes in {path} have the shape {labels.shape} and the type {labels.dtype}; "
            f"those of the image {project.image!r} have the shape {project.shape}. "
            "The folder was changed or damaged"
        )
    return labels
