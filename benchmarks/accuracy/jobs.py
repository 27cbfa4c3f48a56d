"""What is to be trained: descriptions of single runs, and the recipe that they share."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from accuracy.datasets import Budget
from napari_affmae.config import FinetuneConfig, LabelClass, PretrainConfig, Settings
from napari_affmae.engine.store.starting_weights import starting_weights

MaskedNetwork = Literal["affmae-nano", "affmae-small", "affmae-base", "vit-small", "vit-base"]
Network = Literal[MaskedNetwork, "dynunet", "forest"]

PRETRAIN: Mapping[str, Any] = {
    "crop": 256,
    "batch": 64,
    "precision": "bf16",
    "learning_rate": 5e-4,
    "betas": (0.9, 0.95),
    "weight_decay": 0.05,
    "clip": 5.0,
    "augmentation": {"flips": True, "affine": 0, "elastic": 0, "intensity": 0.5, "noise": 0},
}
FINETUNE: Mapping[str, Any] = {
    "crop": 256,
    "batch": 16,
    "steps": 1200,
    "precision": "bf16",
    "betas": (0.9, 0.95),
    "weight_decay": 0.0075,
    "warmup": 0.05,
    "clip": 5.0,
    "augmentation": {"flips": True, "affine": 0.5, "elastic": 0.3, "intensity": 0.5, "noise": 0},
}
# Rate, and its decay from block to block down where weights are pretrained.
RATES: Mapping[str, tuple[float, float]] = {
    "affmae": (1e-3, 0.8),
    "vit": (5e-4, 0.75),
    "dynunet": (1e-3, 1.0),
}
# The best of so many is the score.
VALIDATIONS = 6


class Job(Settings):
    """One run.

    Attributes
    ----------
    name : str
        Of its folder and its result.
    seed : int
        Of weights, crops and masks.
    settings : dict
        Fields of its config that differ from the recipe.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    seed: int = 0
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def family(self) -> str:
        """Kind of the network."""
        return str(self.network).partition("-")[0]

    @property
    def preset(self) -> str:
        """Size of the network; where it has none, one for the estimate of memory."""
        return str(self.network).partition("-")[2] or "small"


class PretrainJob(Job):
    """Pretraining of one network.

    Attributes
    ----------
    network : str
        Family and size.
    sets : tuple of str
        Labelled sets whose training images are used.
    merge_ratio : float or None
        Share of tokens that AFFMAE keeps after a stage; None for the preset's.
    deep_supervision : bool
        Whether AFFMAE's early decoder stages have losses of their own.
    """

    kind: Literal["pretrain"] = "pretrain"
    network: MaskedNetwork
    sets: tuple[str, ...]
    merge_ratio: float | None = None
    deep_supervision: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        """Jobs whose results it takes."""
        return ()

    @property
    def is_timed(self) -> bool:
        """Whether it ends by the clock, so that it needs a GPU for itself."""
        return "minutes" in self.settings

    def config(self, device: str) -> PretrainConfig:
        """Make the settings of the run on a device."""
        fixed = {"preset": self.preset, "seed": self.seed, "device": device}
        return PretrainConfig(**{**PRETRAIN, **self.settings, **fixed})


class SegmentJob(Job):
    """Training for segmentation of one set with one label budget.

    Attributes
    ----------
    network : str
        Family and size.
    method : str
        Its name in tables.
    dataset : str
        The set.
    budget : str
        How many of its planes are labelled.
    start : str or None
        Pretraining job, name of weights that come with the program, or path of a
        pretrained run or model file; None for random weights.
    like : tuple of str
        Jobs as long as which it takes, on a GPU.
    pace : str or None
        Job that tells how long its own steps take; goes with `like`.
    variant : bool
        Whether it differs from the recipe, so that curves leave it out.
    """

    kind: Literal["segment"] = "segment"
    network: Network
    method: str
    dataset: str
    budget: Budget
    start: str | None = None
    like: tuple[str, ...] = ()
    pace: str | None = None
    variant: bool = False

    @property
    def from_outside(self) -> bool:
        """Whether it starts from weights that no job of the campaign makes."""
        return self.start is not None and ("/" in self.start or self.start in starting_weights())

    @property
    def pretraining(self) -> str | None:
        """Name of the pretraining job that it starts from."""
        return None if self.from_outside else self.start

    @property
    def needs(self) -> tuple[str, ...]:
        """Jobs whose results it takes."""
        names = (self.pretraining, *self.like, self.pace)
        return tuple(name for name in names if name is not None)

    def config(
        self, device: str, classes: tuple[LabelClass, ...], results: Mapping[str, Any]
    ) -> FinetuneConfig:
        """Make the settings of the run on a device.

        Parameters
        ----------
        device : str
            Where it trains.
        classes : tuple of LabelClass
            Those of the set.
        results : Mapping
            Results of the jobs in `needs`, by name.
        """
        rate, decay = RATES[self.family]
        rates = {"learning_rate": rate, "layer_decay": decay}
        settings = {**FINETUNE, **rates, **self.settings}
        if self.pace is not None:
            spent = sum(results[name]["gpu_seconds"] for name in self.like)
            pace = results[self.pace]
            settings["steps"] = math.ceil(spent / pace["gpu_seconds"] * pace["steps"])
        settings.setdefault("validation_steps", math.ceil(settings["steps"] / VALIDATIONS))
        fixed = {"preset": self.preset, "seed": self.seed, "device": device, "classes": classes}
        return FinetuneConfig(**{**settings, **fixed})


AnyJob = Annotated[PretrainJob | SegmentJob, Field(discriminator="kind")]
READ_JOB: TypeAdapter[PretrainJob | SegmentJob] = TypeAdapter(AnyJob)


def model_of(runs: Path, name: str) -> Path:
    """Path of the model file of a pretraining job."""
    return runs / name / "model.safetensors"
