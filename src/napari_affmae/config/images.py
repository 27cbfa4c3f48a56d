"""How images are prepared, and what labels mean."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from napari_affmae.config.base import Settings


class NormalizationConfig(Settings):
    """How pixel values become network input (fitted per source)."""

    low: float = Field(0.5, ge=0, lt=50, title="Low percentile", description="Maps to black.")
    high: float = Field(99.5, gt=50, le=100, title="High percentile", description="Maps to white.")
    clahe: bool = Field(
        False,
        title="CLAHE",
        description="Equalise local contrast first, as in the paper's fine-tuning.",
    )
    invert: bool = Field(
        False, title="Invert", description="For images whose membranes are bright, not dark."
    )


class AugmentationConfig(Settings):
    """Random changes to training crops; probabilities are per crop."""

    flips: bool = Field(True, title="Flips and turns", description="Mirror and 90 degree turns.")
    affine: float = Field(0.3, ge=0, le=1, title="Affine", description="Rotate, scale, shear.")
    elastic: float = Field(0.2, ge=0, le=1, title="Elastic", description="Smooth deformation.")
    intensity: float = Field(
        0.5, ge=0, le=1, title="Intensity", description="Brightness, contrast and gamma."
    )
    noise: float = Field(0.2, ge=0, le=1, title="Blur and noise", description="Either of the two.")


class LabelClass(Settings):
    """One class of a segmentation."""

    value: int = Field(ge=0, title="Value", description="Its number in the label images.")
    name: str = Field(title="Name", description="Shown to the user.")
    color: str = Field(pattern=r"^#[0-9a-fA-F]{6}$", title="Colour", description="As #rrggbb.")


def distinct_classes(classes: Sequence[LabelClass]) -> tuple[LabelClass, ...]:
    """Return the classes, if each has a name of its own: scores are told by name.

    Raises
    ------
    ValueError
        If two have the same name.
    """
    names = [item.name for item in classes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two classes are named {name!r}; give each a name of its own")
    return tuple(classes)


Classes = Annotated[tuple[LabelClass, ...], AfterValidator(distinct_classes)]
