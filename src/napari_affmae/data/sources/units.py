"""Lengths in nanometres, from the names that image files give to units."""

# Plane, row and column in nanometres.
VoxelSize = tuple[float | None, float | None, float | None]

_NANOMETRES = {
    "pm": 1e-3,
    "picometer": 1e-3,
    "å": 0.1,
    "a": 0.1,
    "angstrom": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "\\u00b5m": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "inch": 2.54e7,
    "m": 1e9,
    "meter": 1e9,
}


def to_nanometres(value: float, unit: str | None) -> float | None:
    """Length in nanometres; None for an unknown unit or a length that is not positive."""
    name = (unit or "").strip().lower().replace("metre", "meter")
    factor = _NANOMETRES.get(name) or _NANOMETRES.get(name.removesuffix("s"))
    if factor is None or not 0 < value < float("inf"):
        return None
    return round(value * factor, 6)


def pixel_size(row: float | None, column: float | None) -> tuple[float, float] | None:
    """Pair of both sizes in nanometres, or None if either is unknown."""
    return None if row is None or column is None else (row, column)
