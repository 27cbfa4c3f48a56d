"""The tile that a package shows its model on, and that other programs test it with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import RUN_FILE
from napari_affmae.data import ImageSource, open_source, require_channels, synthetic_sample
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.records import DATA
from napari_affmae.engine.store.run_folder import read_record
from napari_affmae.errors import UnreadableFileError


@dataclass(frozen=True)
class Example:
    """A tile with the values that the image has.

    Attributes
    ----------
    pixels : ndarray, (channels, tile, tile), float32
        The tile.
    origin : str
        Where it comes from, as a part of a sentence.
    """

    pixels: NDArray[np.float32]
    origin: str


def find_example(model: Path, metadata: ModelMetadata, tile: int, image: Path | None) -> Example:
    """Take the middle of an image: the given one, one of the training, or a synthetic one.

    Parameters
    ----------
    model : Path
        Run folder or model file; a run's record says where its images are.
    metadata : ModelMetadata
        Metadata of the model.
    tile : int
        Side of the tile, pixels.
    image : Path or None
        The image to take.

    Raises
    ------
    DataError
        If the given image has other channels than the model.
    UnreadableFileError
        If the given image cannot be read.
    """
    if image is not None:
        with open_source(image) as source:
            require_channels(source, metadata.model.in_channels)
            return Example(_middle(source, tile), f"the middle of {source.name}")
    for path in _training_images(model, metadata):
        try:
            with open_source(path) as source:
                if source.fingerprint() in metadata.normalization.statistics:
                    pixels = _middle(source, tile)
                    return Example(pixels, f"the middle of {source.name}, a training image")
        except UnreadableFileError:
            continue  # it was moved or changed since, and another may be there
    volume, _, _ = synthetic_sample()
    stack = np.repeat(volume[:, None], metadata.model.in_channels, axis=1)
    pixels = _middle(open_source(stack, axes="ZCYX"), tile)
    return Example(pixels, "a synthetic image, which says nothing of how good the model is")


def _training_images(model: Path, metadata: ModelMetadata) -> Iterator[Path]:
    """List files of a run, of which those that the model knows are its images."""
    if not (model / RUN_FILE).is_file():
        return
    for item in DATA.read(model, read_record(model)["data"]):
        path = item.get("path")
        if path is not None and item["fingerprint"] in metadata.normalization.statistics:
            yield Path(path)


def _middle(source: ImageSource, tile: int) -> NDArray[np.float32]:
    """Read the middle of the middle plane, mirrored where the image is smaller."""
    rows, columns = (
        slice(max(0, (size - tile) // 2), max(0, (size - tile) // 2) + min(size, tile))
        for size in (source.height, source.width)
    )
    pixels = source.read(source.n_planes // 2, rows, columns).astype(np.float32)
    finite = np.isfinite(pixels)
    pixels[~finite] = pixels[finite].mean() if finite.any() else 0
    missing = [(0, tile - size) for size in pixels.shape[1:]]
    return np.pad(pixels, [(0, 0), *missing], "symmetric")
