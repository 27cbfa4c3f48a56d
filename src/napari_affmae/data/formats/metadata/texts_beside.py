"""Sizes of pixels in the text files that scanning microscopes write beside an image."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from napari_affmae.data.formats.metadata.texts import decoded_text, entries, tescan_size
from napari_affmae.data.sources.units import UNKNOWN_SIZE, VoxelSize, to_nanometres

_MOST_TEXT = 2**20  # bytes; such files have a few thousand


def _hitachi_or_jeol(text: str) -> VoxelSize:
    if re.search(r"^\[(Sem|Tem)ImageFile\]", text, re.MULTILINE):  # Hitachi: nanometres
        size = to_nanometres(entries(text).get("PixelSize"), "nm")
        return None, size, size
    # JEOL: how many pixels its scale bar has, and for which length it stands.
    pixels = re.search(r"^\${1,2}SM_MICRON_BAR\s+([\d.]+)", text, re.MULTILINE)
    length = re.search(r"^\${1,2}SM_MICRON_MARKER\s+([\d.]+)\s*(\S+)", text, re.MULTILINE)
    if pixels and length and float(pixels[1]):
        whole = to_nanometres(length[1], length[2])
        size = None if whole is None else whole / float(pixels[1])
        return None, size, size
    return UNKNOWN_SIZE


def _tescan(text: str) -> VoxelSize:
    return tescan_size(entries(text)) if "[MAIN]" in text else UNKNOWN_SIZE


# What is behind the image's name without suffix, and what reads it.
_TEXTS: tuple[tuple[str, Callable[[str], VoxelSize]], ...] = (
    (".txt", _hitachi_or_jeol),
    (".TXT", _hitachi_or_jeol),
    ("-tif.hdr", _tescan),
    ("-png.hdr", _tescan),
    (".hdr", _tescan),
)


def times_beside(path: Path) -> tuple[int, ...]:
    """Return when each text that may be beside an image changed; 0 where there is none."""
    before = str(path.with_suffix(""))
    times = []
    for ending, _ in _TEXTS:
        try:
            times.append(os.stat(before + ending).st_mtime_ns)  # noqa: PTH116 - Path takes as long again
        except OSError:
            times.append(0)
    return tuple(times)


def _beside(path: Path) -> Iterator[tuple[Path, Callable[[str], VoxelSize]]]:
    return ((path.with_name(path.stem + ending), read) for ending, read in _TEXTS)


def size_beside(path: Path) -> tuple[VoxelSize, list[str]]:
    """Return the size of a voxel by a text file of the image's name, as microscopes write it.

    Hitachi and JEOL write ``image.txt``, TESCAN writes ``image-tif.hdr`` or ``image.hdr``.
    Other files of these names state nothing.

    Parameters
    ----------
    path : Path
        The image.

    Returns
    -------
    size : VoxelSize
        In nanometres.
    notes : list of str
        Files that cannot be read; the image can be read all the same.
    """
    notes = []
    for beside, read in _beside(path):
        if not os.path.isfile(beside):  # noqa: PTH113 - Path's raises where a name is too long
            continue
        try:
            with beside.open("rb") as file:
                size = read(decoded_text(file.read(_MOST_TEXT)))
        except (OSError, ValueError) as error:
            notes.append(f"the pixel size in {beside.name} cannot be read: {error}")
            continue
        if None not in size[1:]:
            return size, notes
    return UNKNOWN_SIZE, notes
