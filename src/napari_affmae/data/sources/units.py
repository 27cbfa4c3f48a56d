"""Lengths in nanometres, from the names that image files give to units."""

import re
import unicodedata
from typing import Any

# Plane, row and column in nanometres.
VoxelSize = tuple[float | None, float | None, float | None]

UNKNOWN_SIZE: VoxelSize = (None, None, None)

# Programs that know no pixel size write the resolution of a printer or a screen: 72 to 1200
# dots an inch are 21 to 353 µm a pixel, of which some programs make micrometres or millimetres.
_LARGEST_NM = 10_000.0
# In units of paper, even the resolution of a film scanner (up to 25,400 dots an inch) is not
# that of what the film shows.
_LARGEST_ON_PAPER_NM = 1000.0
_PAPER = {"inch", "inches", "in", "cm", "centimeter", "centimeters"}

_NANOMETRES = {
    "pm": 1e-3,
    "picometer": 1e-3,
    "å": 0.1,
    "a": 0.1,
    "ang": 0.1,
    "angstrom": 0.1,
    "angström": 0.1,
    "ångström": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "um": 1e3,
    "μm": 1e3,
    "μ": 1e3,
    "mu": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "in": 2.54e7,
    "inch": 2.54e7,
    "inche": 2.54e7,
    "m": 1e9,
    "meter": 1e9,
}


def to_nanometres(value: Any, unit: object) -> float | None:
    """Convert a length that a file states.

    Parameters
    ----------
    value : number or str
        The length, as the file has it.
    unit : str or None
        The name of its unit.

    Returns
    -------
    float or None
        None for an unknown unit, and for what is no number or not positive.
    """
    name = _plain(unit)
    factor = _NANOMETRES.get(name) or _NANOMETRES.get(name.removesuffix("s"))
    try:
        length = float(value)
    except (TypeError, ValueError):
        return None
    if factor is None or not 0 < length < float("inf"):
        return None
    return round(length * factor, 6)


def to_plausible_nanometres(value: Any, unit: object) -> float | None:
    """Convert a pixel's size as `to_nanometres`; None where it is that of paper or a screen."""
    size = to_nanometres(value, unit)
    largest = _LARGEST_ON_PAPER_NM if _plain(unit) in _PAPER else _LARGEST_NM
    return size if size is not None and size <= largest else None


def _plain(unit: object) -> str:
    """Return a unit's name with one spelling of each of its signs."""
    text = unit if isinstance(unit, str) else ""
    # ImageJ writes signs beyond ASCII as \u00B5; UTF-8 that was read as Latin-1 begins with Â.
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    text = unicodedata.normalize("NFKC", text.replace("Â", "")).replace("\0", "")
    return text.strip().lower().replace("metre", "meter")


def pixel_size(row: float | None, column: float | None) -> tuple[float, float] | None:
    """Pair of both sizes in nanometres, or None if either is unknown."""
    return None if row is None or column is None else (row, column)
