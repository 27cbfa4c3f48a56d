"""Names and colours of classes, as files keep them beside label values.

Label values come first: whatever reads a file must get them. So a TIFF stays a grey
image, and what is told of its classes lies beside the pixels:

- an annotation in the OME metadata, which this program reads back and Bio-Formats lists;
- a table of colours, although TIFF means it for palette images. ImageJ shows 8-bit
  images by it, and other readers pass over it. A palette image would be turned into
  red, green and blue by some of them.

OME-Zarr has a place of its own for both, ``image-label``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_affmae.config import LabelClass, distinct_classes

#: Marks our annotation among others in a file's OME-XML.
NAMESPACE = "napari-affmae/classes"
_COLORS = 256
# What XML 1.0 has no characters for.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def class_annotation(classes: Sequence[LabelClass]) -> dict[str, object]:
    """Describe classes as an OME map annotation: each value, with its name and colour.

    Parameters
    ----------
    classes : sequence of LabelClass
        The classes.

    Returns
    -------
    dict
        As `tifffile.OmeXml` takes it.
    """
    texts = {str(item.value): f"{_as_xml(item.name)} {item.color}" for item in classes}
    return {"Namespace": NAMESPACE, "Value": texts}


def class_channels(classes: Sequence[LabelClass]) -> dict[str, list[object]]:
    """Describe one OME channel a class, with its name and colour."""
    return {
        "Name": [_as_xml(item.name) for item in classes],
        "Color": [_ome_color(item.color) for item in classes],
    }


def rgb(color: str) -> tuple[int, int, int]:
    """Return red, green and blue of ``#rrggbb``, each 0 to 255."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def color_table(classes: Sequence[LabelClass]) -> NDArray[np.uint16] | None:
    """Make the table of colours of an 8-bit TIFF.

    Parameters
    ----------
    classes : sequence of LabelClass
        The classes.

    Returns
    -------
    ndarray, (3, 256), uint16, or None
        Red, green and blue of each value, black where there is no class; None if a
        class has a value that 8 bits do not hold.
    """
    table = np.zeros((3, _COLORS), np.uint16)
    for item in classes:
        if item.value >= _COLORS:
            return None
        table[:, item.value] = np.array(rgb(item.color)) * 257  # 255 becomes 65535
    return table


def classes_in_ome(ome: str | None) -> tuple[LabelClass, ...]:
    """Read the classes that `class_annotation` wrote.

    Parameters
    ----------
    ome : str or None
        OME-XML.

    Returns
    -------
    tuple of LabelClass
        By value; empty where there are none, or they are damaged.
    """
    if not ome or NAMESPACE not in ome:
        return ()
    try:
        root = ET.fromstring(ome)
    except ET.ParseError:
        return ()
    for annotation in root.iter():
        if annotation.get("Namespace") == NAMESPACE:
            entries = [entry for entry in annotation.iter() if entry.get("K")]
            parted = ((entry.get("K"), (entry.text or "").rpartition(" ")) for entry in entries)
            return _checked(
                {"value": value, "name": name, "color": color} for value, (name, _, color) in parted
            )
    return ()


def classes_in_image_label(metadata: object) -> tuple[LabelClass, ...]:
    """Read the classes of a label image whose ``image-label`` has names and colours.

    Parameters
    ----------
    metadata : object
        What the attribute holds, which another program may have written.

    Returns
    -------
    tuple of LabelClass
        By value, those that have both; empty where there are none, or they are damaged.
    """
    if not isinstance(metadata, Mapping):
        return ()
    names = _by_value(metadata.get("properties"), "name")
    colors = _by_value(metadata.get("colors"), "rgba")
    return _checked(
        {"value": value, "name": name, "color": _hexadecimal(colors[value])}
        for value, name in names.items()
        if value in colors
    )


def _by_value(entries: object, key: str) -> dict[int, Any]:
    """List what `image-label` says of each value under a key."""
    if not isinstance(entries, list):
        return {}
    return {
        entry["label-value"]: entry[key]
        for entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("label-value"), int) and key in entry
    }


def _checked(entries: Iterable[Mapping[str, object]]) -> tuple[LabelClass, ...]:
    """Make classes of what a file says; none if any of it is wrong, or names are not distinct."""
    try:
        classes = [LabelClass.model_validate(entry) for entry in entries]
        return distinct_classes(sorted(classes, key=lambda item: item.value))
    except (ValidationError, ValueError):
        return ()


def _as_xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _hexadecimal(rgba: object) -> str:
    """Return ``#rrggbb``, or what `LabelClass` refuses."""
    try:
        return f"#{bytes(rgba)[:3].hex()}"  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return ""


def _ome_color(color: str) -> int:
    """Return a colour as OME's signed 32-bit number of red, green, blue and alpha."""
    return int.from_bytes(bytes((*rgb(color), 255)), "big", signed=True)
