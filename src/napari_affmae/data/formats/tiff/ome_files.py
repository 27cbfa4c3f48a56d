"""Other files that an OME-TIFF names: those of its other planes, and of its metadata."""

from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import tifffile

from napari_affmae.data.formats.files.foreign import Surroundings

_MOST_XML = 2**26  # bytes of metadata that are read
_TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")


def check_named(tiff: tifffile.TiffFile, surroundings: Surroundings) -> None:
    """Refuse files of other planes that the OME metadata name, before tifffile opens them.

    Raises
    ------
    ValueError
        If a file is not among the surroundings.
    """
    root = _root(tiff)
    if root is None:
        return
    others = [
        item.attrib.get("FileName", "")
        for item in root.iter()
        if item.tag.endswith("UUID") and item.text != root.attrib.get("UUID")
    ]
    for name in sorted(set(others) - {""}):
        surroundings.check(name, surroundings.folder)


def companion_metadata(
    tiff: tifffile.TiffFile, surroundings: Surroundings
) -> tuple[str | None, list[str]]:
    """Read the metadata of a TIFF that leaves them to a companion file, or to another TIFF.

    Parameters
    ----------
    tiff : tifffile.TiffFile
        The file.
    surroundings : Surroundings
        Where the companion may be.

    Returns
    -------
    xml : str or None
        OME metadata that list this file; None if it has its own or they are not to be had.
    notes : list of str
        Why they are not.

    Raises
    ------
    ValueError
        If the companion is not among the surroundings, or too large.
    """
    root = _root(tiff)
    pointer = None if root is None else root.find("{*}BinaryOnly")
    name = "" if pointer is None else pointer.get("MetadataFile", "")
    if not name:
        return None, []
    companion = surroundings.check(name, surroundings.folder)
    if companion is None:
        return None, [f"is read by itself: its companion file {name}, with its metadata, is gone"]
    try:
        metadata = ET.fromstring(_read_xml(companion))
    except ET.ParseError as error:
        return None, [f"is read by itself: its companion file {name} is damaged: {error}"]
    listed = {item.get("FileName") for item in metadata.findall(".//{*}UUID")}
    if Path(tiff.filehandle.path).name not in listed:
        return None, [f"is read by itself: its companion file {name} does not list it"]
    metadata.attrib.pop("UUID", None)  # that of the companion, which tifffile takes for this file's
    return ET.tostring(metadata, encoding="unicode"), []


def _root(tiff: tifffile.TiffFile) -> ET.Element | None:
    """Return the OME metadata of a TIFF; None where tifffile uses none, too."""
    if tiff.is_ome and tiff.ome_metadata:
        with suppress(ET.ParseError):
            return ET.fromstring(tiff.ome_metadata)
    return None


def _read_xml(companion: Path) -> str:
    if companion.suffix.lower() in _TIFF_SUFFIXES:
        with tifffile.TiffFile(companion) as first:
            return first.pages.first.description
    size = companion.stat().st_size
    if size > _MOST_XML:
        raise ValueError(f"its companion file {companion.name} has {size} bytes, too many to read")
    return companion.read_text(encoding="utf-8", errors="replace")
