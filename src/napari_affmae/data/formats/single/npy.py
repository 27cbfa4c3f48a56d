"""Arrays that numpy saved (.npy), read piece by piece and never unpickled."""

from dataclasses import replace
from pathlib import Path

from numpy.lib import format as npy_format

from napari_affmae.data.formats.arrays.streams import opened_pixels
from napari_affmae.data.formats.arrays.views import Reversed
from napari_affmae.data.formats.files.handles import OpenFile

_HEADERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


def open_file(path: Path) -> OpenFile:
    """Open an array of numbers, in the memory order that the file has.

    Raises
    ------
    ValueError
        If it is no such file, is cut short, or holds Python objects.
    """
    with path.open("rb") as file:
        version = npy_format.read_magic(file)
        if version not in _HEADERS:  # the third is for names of fields, which images have not
            raise ValueError(f"its version {version} is not read; save it again with numpy.save")
        shape, fastest_first, dtype = _HEADERS[version](file)
        offset = file.tell()
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects, which could run programs when they are loaded and are not "
            "read; save an array of numbers"
        )
    stored = opened_pixels(path, shape[::-1] if fastest_first else shape, dtype, skipped=offset)
    return replace(stored, array=Reversed(stored.array)) if fastest_first else stored
