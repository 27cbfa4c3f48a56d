"""Texts in which microscopes state their settings, in an image's tags or beside it."""

from collections.abc import Mapping

from napari_affmae.data.sources.units import VoxelSize, to_nanometres


def decoded_text(raw: bytes) -> str:
    """Decode text that is UTF-16 or UTF-8, else takes each byte for a Latin letter."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace").rstrip("\0")
    if raw[1:2] == b"\0":
        return raw.decode("utf-16-le", "replace").rstrip("\0")
    try:
        return raw.decode("utf-8-sig").rstrip("\0")
    except UnicodeDecodeError:
        return raw.decode("latin-1").rstrip("\0")


def entries(text: str) -> dict[str, str]:
    """Return the values of lines such as ``PixelSize=4.0`` by their names; the first counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        found.setdefault(name.strip(), value.strip())
    return found


def tescan_size(known: Mapping[str, str]) -> VoxelSize:
    """Voxel size by the entries of TESCAN's header, which has no rows' where pixels are square."""
    column = to_nanometres(known.get("PixelSizeX"), "m")
    row = to_nanometres(known.get("PixelSizeY"), "m")
    return None, row or column, column
