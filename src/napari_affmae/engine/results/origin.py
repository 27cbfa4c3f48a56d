"""What a result was computed from, written into its file, so that results are not confused."""

from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

from pydantic import BaseModel, ConfigDict, ValidationError
from tifffile import TiffFile

from napari_affmae.config import ORIGIN_NAMESPACE
from napari_affmae.data import ImageSource

_WORDS = (
    ("image", "another image"),
    ("model", "another model"),
    ("tile", "another size of tiles"),
    ("overlap", "another overlap of tiles"),
    ("precision", "another precision"),
    ("directions", "another number of directions"),
)


class Origin(BaseModel):
    """What decides about the content of a segmentation.

    Attributes
    ----------
    image : str
        Fingerprint of the image.
    model : str
        Fingerprint of the model file.
    tile : int
        Side of a tile, pixels.
    overlap : float
        Share of a tile that it shares with the next.
    precision : str
        Of the network's matrix products.
    directions : int
        1, or 3 if predictions on planes along all axes are averaged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["1"] = "1"
    image: str
    model: str
    tile: int
    overlap: float
    precision: str
    directions: int = 1

    def differences(self, other: "Origin") -> list[str]:
        """Say in which respects another origin differs, in words for the user."""
        return [words for name, words in _WORDS if getattr(self, name) != getattr(other, name)]

    def texts(self) -> dict[str, str]:
        """Return the entries as texts, as annotations are."""
        return {name: str(value) for name, value in self}


def why_not_of(path: Path, source: ImageSource, origin: Origin) -> str | None:
    """Say why a file is not the result of an image, a model and settings.

    Parameters
    ----------
    path : Path
        A result that `PlaneFile` wrote.
    source : ImageSource
        The image.
    origin : Origin
        What the result should come from.

    Returns
    -------
    str or None
        The reason, for the user to read; None if the file is that result, and complete.
    """
    try:
        with TiffFile(path) as file:
            found = _read(file.ome_metadata or "")
            complete = _is_complete(file, source)
    except Exception as error:  # noqa: BLE001 - a damaged file may raise anything
        return f"it cannot be read ({error})"
    if found is None:
        return "it does not say what it was made from"
    differences = found.differences(origin)
    if differences:
        return f"it was made with {' and '.join(differences)}"
    return None if complete else "it is not complete"


def _read(ome: str) -> Origin | None:
    if ORIGIN_NAMESPACE not in ome:
        return None
    for annotation in ET.fromstring(ome).iter():
        if annotation.get("Namespace") == ORIGIN_NAMESPACE:
            entries = (entry for entry in annotation.iter() if entry.get("K"))
            try:
                return Origin.model_validate({entry.get("K"): entry.text for entry in entries})
            except ValidationError:
                return None
    return None


def _is_complete(file: TiffFile, source: ImageSource) -> bool:
    """Whether there are all planes, and the last one, which was written last, can be decoded."""
    pages = file.pages
    if len(pages) == 0 or len(pages) % source.n_planes:
        return False
    return bool(pages[-1].asarray().shape == (source.height, source.width))
