"""Sizes of pixels in the tags that programs of microscopes and cameras add to a TIFF.

Each program has tags of its own, and none fills in those that TIFF has for it: these mostly
hold the resolution of a printer.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from xml.etree import ElementTree as ET

import numpy as np
import tifffile

from napari_affmae.data.formats.metadata.texts import decoded_text, entries, tescan_size
from napari_affmae.data.sources.units import UNKNOWN_SIZE, VoxelSize, to_nanometres

_PRIVATE = 32768  # TIFF 6.0 gives codes from here on to others
_MOST_TEXT = 2**24  # bytes of a tag that are searched


class VendorTags:
    """The tags of those pages of a TIFF on which programs put theirs: first, second and last.

    Parameters
    ----------
    tiff : tifffile.TiffFile
        The file, which stays open meanwhile.
    """

    def __init__(self, tiff: tifffile.TiffFile) -> None:
        self.tiff = tiff
        numbers = sorted({0, 1, len(tiff.pages) - 1} & set(range(len(tiff.pages))))
        self._tags = [cast("tifffile.TiffPage", tiff.pages.get(number)).tags for number in numbers]

    @property
    def has_private(self) -> bool:
        """Whether there are tags that are none of TIFF's own."""
        return any(code >= _PRIVATE for tags in self._tags for code in tags.keys())  # noqa: SIM118

    def value(self, code: int) -> Any:
        """Return what tifffile makes of a tag; None if there is no such tag."""
        tag = self._tag(code)
        return None if tag is None else tag.value

    def text(self, code: int) -> str:
        """Return the text of a tag in whatever encoding it has; "" if there is no such tag."""
        tag = self._tag(code)
        if tag is None:
            return ""
        handle = self.tiff.filehandle
        handle.seek(tag.valueoffset)
        return decoded_text(handle.read(min(tag.valuebytecount, _MOST_TEXT)))

    def _tag(self, code: int) -> Any:
        found = (tags.get(code) for tags in self._tags)
        return next((tag for tag in found if tag is not None), None)


def _zeiss(tags: VendorTags) -> VoxelSize:
    """SmartSEM: the size in the image goes before that of the scan."""
    known: Mapping[str, Any] = tags.value(34118) or {}
    for name in ("ap_image_pixel_size", "ap_pixel_size"):
        _, value, unit = (*known.get(name, ()), None, None, None)[:3]
        if (size := to_nanometres(value, unit)) is not None:
            return None, size, size
    return UNKNOWN_SIZE


def _fei(tags: VendorTags) -> VoxelSize:
    """FEI and Thermo Fisher, as a text of sections: metres, of the beam that made the image."""
    known = {**(tags.value(34680) or {}), **(tags.value(34682) or {})}
    beam = known.get("Beam", {}).get("Scan")
    for name in ("Scan", beam, "EScan", "IScan"):
        scan = known.get(name, {})
        row, column = (to_nanometres(scan.get(f"Pixel{side}"), "m") for side in ("Height", "Width"))
        if row is not None and column is not None:
            return None, row, column
    return UNKNOWN_SIZE


def _fei_xml(tags: VendorTags) -> VoxelSize:
    """FEI and Thermo Fisher, as XML: transmission microscopes, and Phenom's own elements."""
    for code in (34683, 34682):
        for root in _xml(tags.text(code)):
            size = root.find(".//{*}BinaryResult/{*}PixelSize")
            if size is not None:
                return None, _length(size.find("{*}Y")), _length(size.find("{*}X"))
            width, height = (root.find(f".//{{*}}pixel{side}") for side in ("Width", "Height"))
            if width is not None:
                return None, _length(width if height is None else height), _length(width)
    return UNKNOWN_SIZE


def _gatan(tags: VendorTags) -> VoxelSize:
    """DigitalMicrograph: unit and scale of columns, rows and planes, in this order."""
    column, row, plane = (
        to_nanometres(tags.value(65009 + axis), tags.text(65003 + axis)) for axis in range(3)
    )
    return plane, row, column


def _fibics(tags: VendorTags) -> VoxelSize:
    """Fibics and Zeiss Atlas: the steps from pixel to pixel as vectors on the sample."""
    for root in _xml(tags.text(51023)):
        steps = {
            name: _length(root.find(f".//{{*}}Scan/{{*}}{name}"), signed=True)
            for name in ("Ux", "Uy", "Vx", "Vy")
        }
        column = math.hypot(steps["Ux"] or 0, steps["Uy"] or 0)
        row = math.hypot(steps["Vx"] or 0, steps["Vy"] or 0)
        return None, to_nanometres(row, "nm"), to_nanometres(column, "nm")
    return UNKNOWN_SIZE


def _olympus(tags: VendorTags) -> VoxelSize:
    """Olympus Soft Imaging Solutions: cameras of transmission microscopes, in metres."""
    known = tags.value(33560)
    if not isinstance(known, dict):  # the tag points to nothing
        return UNKNOWN_SIZE
    return (
        None,
        to_nanometres(known.get("pixelsizey"), "m"),
        to_nanometres(known.get("pixelsizex"), "m"),
    )


def _tvips(tags: VendorTags) -> VoxelSize:
    """TVIPS EM-Menu: nanometres."""
    known = tags.value(37706) or {}
    return (
        None,
        to_nanometres(known.get("PixelSizeY"), "nm"),
        to_nanometres(known.get("PixelSizeX"), "nm"),
    )


def _tescan(tags: VendorTags) -> VoxelSize:
    """TESCAN: metres, in a text of sections."""
    return tescan_size(entries(tags.text(50431)))


def _metamorph(tags: VendorTags) -> VoxelSize:
    """MetaMorph's stacks, and its newer files."""
    tiff = tags.tiff
    if tiff.is_stk and (stack := tiff.stk_metadata):
        if not stack.get("SpatialCalibration", True):
            return UNKNOWN_SIZE
        unit = stack.get("CalibrationUnits")
        distances = np.asarray(stack.get("ZDistance", 0.0), dtype=float)
        return (
            to_nanometres(distances.max(initial=0), unit),  # that of the first plane may be 0
            to_nanometres(stack.get("YCalibration"), unit),
            to_nanometres(stack.get("XCalibration"), unit),
        )
    if tiff.is_metaseries and (series := tiff.metaseries_metadata):
        known = series.get("PlaneInfo", {})
        if known.get("spatial-calibration-state"):
            unit = known.get("spatial-calibration-units")
            row, column = (
                to_nanometres(known.get(f"spatial-calibration-{axis}"), unit) for axis in "yx"
            )
            return None, row, column
    return UNKNOWN_SIZE


def _xml(text: str) -> Iterator[ET.Element]:
    """Yield the root of an XML text; nothing if the text is no XML, as of sections."""
    start = text.find("<")
    if start >= 0 and text[:start].strip() == "":
        # Its declaration may name another encoding than that which it was decoded from.
        body = re.sub(r"^<\?xml.*?\?>", "", text[start:], count=1, flags=re.DOTALL)
        yield ET.fromstring(body.strip())


def _length(element: ET.Element | None, *, signed: bool = False) -> float | None:
    """Length that an XML element states, with its unit as an attribute."""
    if element is None:
        return None
    text = (element.text or "").strip()
    return to_nanometres(text.removeprefix("-") if signed else text, element.get("unit"))


@dataclass(frozen=True)
class Vendor:
    """A program whose tags state sizes.

    Attributes
    ----------
    name : str
        For messages.
    read : callable
        Returns the size of a voxel by the tags, unknown where they do not say;
        raises any error where they are damaged.
    """

    name: str
    read: Callable[[VendorTags], VoxelSize]
    is_private: bool = True
    """Whether its tags are none of TIFF's own."""


VENDORS = (
    Vendor("Zeiss", _zeiss),
    Vendor("FEI", _fei),
    Vendor("FEI", _fei_xml),
    Vendor("Gatan", _gatan),
    Vendor("Fibics", _fibics),
    Vendor("Olympus", _olympus),
    Vendor("TVIPS", _tvips),
    Vendor("TESCAN", _tescan),
    Vendor("MetaMorph", _metamorph, is_private=False),
)


def vendor_size(tiff: tifffile.TiffFile) -> tuple[VoxelSize, list[str]]:
    """Return the size of a voxel by the first vendor's tags that state rows and columns.

    Returns
    -------
    size : VoxelSize
        In nanometres.
    notes : list of str
        Vendors whose tags are damaged; the image can be read all the same.
    """
    tags = VendorTags(tiff)
    notes = []
    # Most files have no such tags, and folders hold very many of them.
    vendors = VENDORS if tags.has_private else [item for item in VENDORS if not item.is_private]
    for vendor in vendors:
        try:
            size = vendor.read(tags)
        except Exception as error:  # noqa: BLE001 - parsers raise all kinds on damaged tags
            notes.append(f"the pixel size in the tags of {vendor.name} cannot be read: {error}")
            continue
        if None not in size[1:]:
            return size, notes
    return UNKNOWN_SIZE, notes
