"""Folders that are one image, or a container of images."""

import json
from pathlib import Path

from napari_affmae.data.formats.paths import is_regular
from napari_affmae.data.sources.failures import failure

#: Files that make a folder a zarr array or group.
ZARR_MARKERS = (".zarray", ".zgroup", "zarr.json")

_N5, _N5_ATTRIBUTES, _MOST_ATTRIBUTES = ".n5", "attributes.json", 2**20


def is_image_folder(folder: Path) -> bool:
    """Whether a folder is one image or a container of images, and no folder of files.

    Raises
    ------
    FileAccessError
        If the system does not say.
    """
    return is_zarr(folder) or is_n5(folder)


def is_n5(folder: Path) -> bool:
    """Whether a folder is an array or a group of N5, which are known by name but not read.

    Raises
    ------
    FileAccessError
        If the system does not say.
    """
    attributes = folder / _N5_ATTRIBUTES
    if folder.suffix.lower() == _N5 or not is_regular(attributes):
        return folder.suffix.lower() == _N5
    try:
        with attributes.open("rb") as file:
            found = json.loads(file.read(_MOST_ATTRIBUTES))
    except ValueError:  # a file of another program
        return False
    except OSError as error:
        raise failure(error, f"cannot read {attributes}") from error
    return isinstance(found, dict) and ("n5" in found or {"dimensions", "blockSize"} <= set(found))


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr array or group.

    Raises
    ------
    FileAccessError
        If the system does not say.
    """
    return any(is_regular(folder / marker) for marker in ZARR_MARKERS)
