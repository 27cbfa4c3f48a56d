"""Folders that are one image, or a container of images."""

import json
from pathlib import Path
from typing import Any

from napari_affmae.data.formats.files.paths import is_regular
from napari_affmae.data.sources.failures import failure

#: Files that make a folder a zarr array or group.
ZARR_MARKERS = (".zarray", ".zgroup", "zarr.json")

#: File that makes a folder an array of N5, or a group with attributes.
N5_MARKER = "attributes.json"

_N5, _MOST_ATTRIBUTES = ".n5", 2**20


def is_image_folder(folder: Path) -> bool:
    """Whether a folder is one image or a container of images, and no folder of files.

    Raises
    ------
    FileAccessError
        If the system does not say.
    """
    return is_zarr(folder) or is_n5(folder)


def is_n5(folder: Path) -> bool:
    """Whether a folder is an array or a group of N5.

    Raises
    ------
    FileAccessError
        If the system does not say.
    """
    if folder.suffix.lower() == _N5:
        return True
    try:
        found = n5_attributes(folder)
    except ValueError:  # a file of another program
        return False
    return "n5" in found or {"dimensions", "blockSize"} <= set(found)


def n5_attributes(folder: Path) -> dict[str, Any]:
    """Return the attributes of an array or group of N5; none where there is no such file.

    Raises
    ------
    ValueError
        If it is damaged, or is of another program.
    FileAccessError
        If the system does not say.
    """
    path = folder / N5_MARKER
    if not is_regular(path):
        return {}
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST_ATTRIBUTES))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no file of N5: {error}") from error
    except OSError as error:
        raise failure(error, f"cannot read {path}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no file of N5: it has no names")
    return found


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr array or group.

    Raises
    ------
    FileAccessError
        If the system does not say.
    """
    return any(is_regular(folder / marker) for marker in ZARR_MARKERS)
