"""Pretraining, fine-tuning and quick training."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from napari_affmae.config.base import (
    MOST_CROP,
    MOST_SEED,
    PRECISION_HELP,
    Device,
    Precision,
    Settings,
)
from napari_affmae.config.images import AugmentationConfig, Classes, NormalizationConfig

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
    precision: Precision = Field("auto", title="Precision", description=PRECISION_HELP)
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
    precision: Precision = Field("auto", title="Precision", description=PRECISION_HELP)
