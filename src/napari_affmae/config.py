"""Every setting of the program, with its title, meaning and bounds.

Command-line help and dock forms are built from these fields, and their JSON is
stored with every run and model, so a number is described once.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

PRESETS = ("nano", "small", "base")

#: Class index of pixels that are not labelled: they enter neither loss nor metric.
IGNORE_INDEX = -100

#: File that makes a folder a run.
RUN_FILE = "run.json"

#: Marks our annotation in a result's metadata, which says what the result was computed from.
ORIGIN_NAMESPACE = "napari-affmae/origin"

#: Crops that a pretraining must see to be worth it. 25,000 made no difference to later
#: fine-tuning and a million did (benchmarks/README.md); this number lies between them by
#: judgement, until the curve is measured.
WORTHWHILE_CROPS = 200_000

#: Labels with more values than this number objects, unless the values are named as classes.
MOST_CLASSES = 64

#: Side of a crop or a tile, pixels; far above what can be trained, and memory is taken by it.
MOST_CROP = 2**14

#: The largest seed of random numbers that every form and every generator takes.
MOST_SEED = 2**31 - 1

Device = Annotated[
    str,
    Field(
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        title="Device",
        examples=["auto", "cpu", "cuda", "cuda:1", "mps"],
        description="auto takes the first GPU, else the CPU, and says which.",
    ),
]
Precision = Literal["auto", "fp32", "fp16", "bf16"]
_PRECISION = "How exactly numbers are kept; auto takes the fastest that the device computes well."
FourInts = tuple[int, int, int, int]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown names are errors, and so is infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: Names of settings that mean nothing any more; old run folders and scripts still have them.
    retired: ClassVar[frozenset[str]] = frozenset()


class ModelConfig(Settings):
    """Shape of an AFFMAE network (paper section 3; presets in `model.presets`)."""

    in_channels: int = Field(1, ge=1, title="Channels", description="Channels of the input image.")
    patch_size: int = Field(8, ge=2, title="Patch size", description="Side of a patch, pixels.")
    channels: FourInts = Field(title="Widths", description="Channels of the four encoder stages.")
    blocks: FourInts = Field(title="Depths", description="Attention blocks of each stage.")
    heads: FourInts = Field(title="Heads", description="Attention heads of each stage.")
    mlp_ratio: float = Field(2.0, gt=0, title="MLP ratio", description="Hidden over block width.")
    neighbourhood: int = Field(
        64, ge=1, title="Neighbourhood", description="Tokens that one token attends to."
    )
    cluster_size: int = Field(8, ge=1, title="Cluster size", description="Tokens in a cluster.")
    merge_ratio: float = Field(
        0.4, gt=0, le=1, title="Merging ratio", description="Share of tokens kept after a stage."
    )
    drop_path: float = Field(0.1, ge=0, lt=1, title="Drop path", description="Rate at the end.")
    decoder_width: int = Field(384, ge=4, title="Decoder width", description="Decoder channels.")
    decoder_heads: int = Field(6, ge=1, title="Decoder heads", description="Decoder heads.")
    decoder_hidden: int = Field(768, ge=1, title="Decoder hidden", description="FFN channels.")
    decoder_points: int = Field(
        4, ge=1, title="Sampling points", description="Locations a decoder head samples."
    )
    decoder_dropout: float = Field(0.1, ge=0, lt=1, title="Dropout", description="In the decoder.")

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> "ModelConfig":
        widths = (*self.channels, self.decoder_width)
        for width, heads in zip(widths, (*self.heads, self.decoder_heads), strict=True):
            if width % heads:
                raise ValueError(f"width {width} cannot be split over {heads} heads")
        if self.patch_size & (self.patch_size - 1):
            raise ValueError(f"patch_size must be a power of two, got {self.patch_size}")
        if self.decoder_width % 4:
            raise ValueError(f"decoder_width must divide by 4, got {self.decoder_width}")
        return self


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


_RATE = "How much a step changes the network, at its highest. If a run diverges, lower it."
_DECAY = "Pulls the network's weights towards 0, against learning by heart; biases are left out."
_NETWORK = "nano for CPUs and quick trials, small and base for graphics cards."


class TrainingConfig(Settings):
    """What pretraining and fine-tuning have in common."""

    retired: ClassVar[frozenset[str]] = frozenset({"workers"})

    crop: int = Field(
        256,
        ge=64,
        le=MOST_CROP,
        title="Square size (crop)",
        description="Side in pixels of the squares that are cut out of the images to learn from.",
    )
    batch: int | Literal["auto"] = Field(
        "auto",
        title="Squares a step (batch)",
        description="Squares that are learned from in one step; auto goes by network and device.",
    )
    steps: int | None = Field(None, ge=1, title="Steps", description="Length of the schedule.")
    minutes: float | None = Field(
        None, gt=0, title="Minutes", description="Length of the schedule, instead of steps."
    )
    learning_rate: float = Field(5e-4, gt=0, title="Learning rate", description=_RATE)
    min_learning_rate: float = Field(1e-6, ge=0, title="Final rate", description="At the end.")
    warmup: float = Field(
        0.05,
        ge=0,
        lt=1,
        title="Gentle start (warm-up)",
        description="Part of the run, from 0 to 1, in which the learning rate rises.",
    )
    betas: tuple[float, float] = Field((0.883, 0.935), title="Betas", description="Of AdamW.")
    weight_decay: float = Field(0.05, ge=0, title="Weight decay", description=_DECAY)
    clip: float = Field(
        5.0,
        gt=0,
        title="Largest change (gradient clip)",
        description="Steps that would change the network more are shortened, so that one odd image "
        "cannot spoil it: the largest norm of a gradient.",
    )
    device: Device = "auto"
    precision: Precision = Field("auto", title="Precision", description=_PRECISION)
    seed: int = Field(
        0,
        ge=0,
        le=MOST_SEED,
        title="Seed",
        description="All random choices follow from it: the same seed repeats a run.",
    )
    memory_share: float = Field(
        0.3,
        gt=0,
        le=0.8,
        title="Memory for images",
        description="Share of the device's free memory for decoded images; the rest of larger data "
        "is read again and again while the run goes on.",
    )
    checkpoint_minutes: float = Field(
        2.0, gt=0, title="Checkpoint every", description="Minutes between checkpoints."
    )
    validation_steps: int | Literal["auto"] = Field(
        "auto",
        title="Validate every",
        description="Steps between validations; auto: so often that they take 1 % of the time.",
    )
    normalization: NormalizationConfig = NormalizationConfig()
    augmentation: AugmentationConfig = AugmentationConfig()

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingConfig":
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either steps or minutes")
        for name in ("batch", "validation_steps"):
            number = getattr(self, name)
            if isinstance(number, int) and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        return self


class PretrainConfig(TrainingConfig):
    """Masked-autoencoder pretraining on unlabelled images."""

    retired: ClassVar[frozenset[str]] = frozenset({"workers", "preview_steps"})

    preset: Literal["nano", "small", "base"] = Field(
        "nano", title="Network (preset)", description=f"Its size: {_NETWORK}"
    )
    in_channels: int = Field(1, ge=1, title="Channels", description="Channels of the images.")
    mask_ratio: float = Field(
        0.5,
        gt=0,
        lt=1,
        title="Hidden part (mask ratio)",
        description="Part of each square, from 0 to 1, that the network does not see and learns to "
        "fill in.",
    )
    mask: Literal["perlin", "uniform"] = Field(
        "perlin",
        title="What is hidden (mask)",
        description="perlin hides blobs, as large as structures; uniform hides small patches.",
    )
    validation: float = Field(
        0.05,
        ge=0,
        lt=1,
        title="Held out (validation share)",
        description="Part of the planes, from 0 to 1, that is not learned from, to measure the "
        "network on.",
    )
    augmentation: AugmentationConfig = AugmentationConfig(affine=0, elastic=0, noise=0)


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


class FinetuneConfig(TrainingConfig):
    """Training of a segmentation network on labelled images."""

    preset: Literal["nano", "small", "base"] = Field(
        "nano",
        title="Network (preset)",
        description=f"Its size, if it starts from nothing learned: {_NETWORK}",
    )
    in_channels: int = Field(1, ge=1, title="Channels", description="Channels of the images.")
    classes: Classes = Field(
        (), title="Classes", description="Empty: the values found in the labels."
    )
    ignore_value: int | None = Field(
        None, title="Not labelled", description="Label value that means unknown."
    )
    # The paper fine-tunes at 1e-4 with a layer decay of 0.6, on thousands of images; these values
    # did best on a few images and in minutes (benchmarks/README.md).
    learning_rate: float = Field(1e-3, gt=0, title="Learning rate", description=_RATE)
    weight_decay: float = Field(0.0075, ge=0, title="Weight decay", description=_DECAY)
    layer_decay: float = Field(
        0.8,
        gt=0,
        le=1,
        title="Keep what is known (layer decay)",
        description="The smaller, the less the lower layers of a pretrained network change: factor "
        "of the learning rate from block to block.",
    )
    class_weights: Literal["frequency", "equal"] | tuple[float, ...] = Field(
        "frequency",
        title="Rare classes (class weights)",
        description="frequency: rare classes count more; equal: each pixel counts the same.",
    )
    focal_gamma: float = Field(
        2.0,
        ge=0,
        title="Difficult pixels (focal gamma)",
        description="The larger, the more pixels count that the network is wrong about; 0: all the "
        "same.",
    )
    validation: float = Field(
        0.2,
        ge=0,
        lt=1,
        title="Held out (validation share)",
        description="Part of the labelled planes, from 0 to 1, that is not learned from, to "
        "measure the network on, where no validation set is given.",
    )
    validation_gap: int = Field(
        1,
        ge=0,
        title="Planes between (gap)",
        description="Planes beside held-out ones that are left out, since neighbours look alike.",
    )


class QuickConfig(Settings):
    """Training of a light head on the frozen features of a pretrained network."""

    steps: int = Field(
        150,
        ge=1,
        title="Steps",
        description="Steps of the first training; later ones take a third of it.",
    )
    hidden: int = Field(
        64,
        ge=1,
        title="Capacity (width)",
        description="The larger, the finer the differences that can be learned, and the slower.",
    )
    learning_rate: float = Field(3e-3, gt=0, title="Learning rate", description=_RATE)
    smoothness: float = Field(
        1.0, ge=0, le=16, title="Smoothness", description="Blur of the prediction, pixels; 0: none."
    )
    seed: int = Field(
        0,
        ge=0,
        le=MOST_SEED,
        title="Seed",
        description="All random choices follow from it: the same seed repeats a training.",
    )
    device: Device = "auto"
    precision: Precision = Field("auto", title="Precision", description=_PRECISION)


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
    precision: Precision = Field("auto", title="Precision", description=_PRECISION)


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
