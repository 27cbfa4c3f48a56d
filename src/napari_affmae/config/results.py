"""Segmentation, and what is made of it."""

from typing import Literal

from pydantic import Field, model_validator

from napari_affmae.config.base import PRECISION_HELP, Device, Precision, Settings


class SegmentConfig(Settings):
    """Tiled segmentation of planes and stacks."""

    tile: int | Literal["auto"] = Field(
        "auto",
        title="Square size (tile)",
        description="Side in pixels of the squares that are segmented one by one; auto: that of "
        "the training.",
    )
    overlap: float = Field(
        0.25,
        ge=0,
        lt=1,
        title="Overlap",
        description="Part of a square, from 0 to 1, that it shares with the next one.",
    )
    batch: int | Literal["auto"] = Field(
        "auto",
        title="Squares at once (batch)",
        description="Auto: as many as a graphics card is fastest with and has memory for.",
    )
    probabilities: bool = Field(
        False,
        title="Probabilities",
        description="Also gives the probability of each class, as images.",
    )
    three_directions: bool = Field(
        False,
        title="Along three directions",
        description="For volumes with planes as far apart as pixels: predicts on planes along all "
        "three axes and averages. Three times the work; needs room on the disk meanwhile.",
    )
    probability_type: Literal["uint8", "float16"] = Field(
        "uint8",
        title="Type of probabilities",
        description="In OME-Zarr; uint8: 0 to 255 stand for 0 to 1; float16: finer, and larger on "
        "the disk. OME-TIFF has float32.",
    )
    device: Device = "auto"
    precision: Precision = Field("auto", title="Precision", description=PRECISION_HELP)


class ObjectsConfig(Settings):
    """From the classes of pixels to single objects."""

    three_d: bool = Field(
        False,
        title="Objects in 3-D",
        description="An object goes on from plane to plane, instead of ending with its plane.",
    )
    link: Literal["touch", "overlap"] = Field(
        "touch",
        title="From plane to plane (link)",
        description="Of objects in 3-D. touch: what touches is one object. overlap: objects of "
        "neighbouring planes are one if they cover each other well; for planes that are far apart.",
    )
    link_iou: float = Field(
        0.25,
        gt=0,
        le=1,
        title="Covering (IoU)",
        description="For overlap: the least area that two objects share, as a part of the area "
        "that they cover together, from 0 to 1.",
    )
    min_size: int = Field(
        50, ge=0, title="Smallest size", description="Objects of fewer pixels are dropped."
    )
    separation: float = Field(
        0.0,
        ge=0,
        title="Separation",
        description="Touching objects are cut where they are thinner by this many pixels than "
        "their middles; larger: fewer cuts. 0 cuts nothing.",
    )

    @property
    def solid(self) -> bool:
        """Whether all that touches is one object, also from plane to plane."""
        return self.three_d and self.link == "touch"

    @model_validator(mode="after")
    def _links_planes(self) -> "ObjectsConfig":
        if self.link == "overlap" and not self.three_d:
            raise ValueError("link overlap is for objects in 3-D, and objects end with their plane")
        return self
