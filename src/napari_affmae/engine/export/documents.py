"""What a package shows to people: its documentation and its cover."""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_affmae.config import LabelClass
from napari_affmae.data.sources.class_metadata import rgb
from napari_affmae.engine.export.description import Terms, halo
from napari_affmae.engine.export.example import Example
from napari_affmae.engine.export.scaling import Scaling
from napari_affmae.engine.store.metadata import ModelMetadata, training_facts

_COVER_SIDE = 256
_SHARE_OF_COLOR = 0.5
_GRAPHS = " `torchscript` and `onnx` need nothing, and give the same to rounding."
_TEXT = """# {name}

A segmentation network for electron microscopy: AFFMAE, fine-tuned with napari-affmae.

- Input: an image of {channels} channel(s), {tile} x {tile} pixels, grey values as in the file.
  Pixel size of the training images: {pixels}.
- Output: the probability of each class. {halo} pixels at each border are predicted badly and should
  be cut off (`halo`); give larger images in overlapping tiles.
- Weights: `pytorch_state_dict` needs the package napari-affmae.{graphs}

## Classes

| channel | name | label value | colour |
|---|---|---|---|
{rows}

## Normalisation

Each image is scaled so that its percentiles {low:g} and {high:g} become 0 and 1, and
clipped. Percentiles are those of the whole image, not of a tile. The network itself{inverted} takes
out mean and deviation, which are the averages of the training images; napari-affmae takes those of
the image. Values that are not finite must be replaced before.

## Validation

{scores}

To see how it does on images of your own, label a few and compare:
`napari-affmae evaluate IMAGES LABELS --model MODEL` gives the IoU of each class.

The test tensors and the cover show {example}.

## Authors and licence

Authors: {authors}.
Licence: {license_id}.
"""


def cover(
    normalized: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    classes: tuple[LabelClass, ...],
) -> bytes:
    """Draw an image, and beside it its segmentation over the image.

    Parameters
    ----------
    normalized : ndarray, (channels, tile, tile), float32
        The image; its first channel is shown.
    probabilities : ndarray, (classes, tile, tile), float32
        What the model says of it.
    classes : tuple of LabelClass
        Their colours.

    Returns
    -------
    bytes
        A PNG, twice as wide as high.
    """
    low, high = float(normalized[0].min()), float(normalized[0].max())
    grey = (normalized[0] - low) * (255 / (high - low))
    image = np.repeat(grey[..., None], 3, axis=-1)
    colors = np.array([rgb(item.color) for item in classes])[probabilities.argmax(0)]
    segmented = image * (1 - _SHARE_OF_COLOR) + colors * _SHARE_OF_COLOR
    both = np.concatenate([image, segmented], axis=1).round().astype(np.uint8)
    picture = Image.fromarray(both).resize((2 * _COVER_SIDE, _COVER_SIDE))
    content = BytesIO()
    picture.save(content, "png")
    return content.getvalue()


def documentation(
    name: str,
    metadata: ModelMetadata,
    scaling: Scaling,
    example: Example,
    terms: Terms,
    model: Path,
    *,
    graphs: bool,
) -> str:
    """Write the documentation of a package.

    Parameters
    ----------
    name : str
        Its name.
    metadata : ModelMetadata
        Metadata of the model.
    scaling : Scaling
        How its input is normalised.
    example : Example
        The tile that the test tensors come from.
    terms : Terms
        Authors and licence.
    model : Path
        The model, for messages.
    graphs : bool
        Whether the package has TorchScript and ONNX.

    Returns
    -------
    str
        Markdown.
    """
    tile = example.pixels.shape[-1]
    size = metadata.pixel_size
    pixels = "not known" if size is None else f"{size[0]:g} x {size[1]:g} nm (row, column)"
    rows = "\n".join(
        f"| {channel} | {_cell(item.name)} | {item.value} | {item.color} |"
        for channel, item in enumerate(metadata.classes)
    )
    return _TEXT.format(
        name=name,
        graphs=_GRAPHS if graphs else "",
        channels=metadata.model.in_channels,
        tile=tile,
        halo=halo(tile),
        pixels=pixels,
        rows=rows,
        low=scaling.config.low,
        high=scaling.config.high,
        inverted=" inverts the image and" if scaling.config.invert else "",
        scores=_scores(metadata, model),
        example=example.origin,
        authors=", ".join(terms.authors) or "not told",
        license_id=terms.license_id or "none was chosen, so ask the authors before you use it",
    )


def _scores(metadata: ModelMetadata, model: Path) -> str:
    facts = training_facts(metadata, model)
    if facts.mean_iou is None:
        return "It was not validated while it was trained."
    known = [f"{name} {value:.3f}" for name, value in facts.iou.items() if value is not None]
    mean = f"Mean IoU on the images that were kept out of its training: {facts.mean_iou:.3f}"
    return f"{mean} ({', '.join(known)})."


def _cell(text: str) -> str:
    """Write a text on one line of a table."""
    return " ".join(text.replace("|", "/").split())
