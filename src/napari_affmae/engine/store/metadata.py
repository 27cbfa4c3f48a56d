"""What a model file says of its network, read without loading torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from napari_affmae.config import MOST_CROP, Classes, ModelConfig, QuickConfig, Settings
from napari_affmae.data import NormalizationRecord
from napari_affmae.engine.store.checkpoints import (
    MODEL_FILE,
    checkpoint_path,
    list_checkpoints,
)
from napari_affmae.engine.store.records import TrainingFacts, reason
from napari_affmae.engine.store.run_state import RunState
from napari_affmae.errors import CheckpointError
from napari_affmae.files import parse_json

#: Key of our metadata in the header of a model file.
METADATA_KEY = "napari-affmae"
# Far above what can be trained. A file may say any number, and memory is taken by these.
_LARGEST_NEIGHBOURHOOD = 2**12
_LARGEST_VALUE = 2**32 - 1
_MOST_NAMES = 20


class ModelMetadata(Settings):
    """What a model file holds beside its weights."""

    format: Literal[1] = 1
    kind: Literal["pretrain", "segment", "quick"]
    model: ModelConfig
    normalization: NormalizationRecord
    crop: int = Field(ge=64, le=MOST_CROP)
    classes: Classes = ()
    ignore_value: int | None = None
    #: (row, column) in nanometres, if it is known and the same for all training images.
    pixel_size: tuple[float, float] | None = None
    quick: QuickConfig | None = None
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _classes_of_a_segmenter(self) -> Self:
        if (self.kind != "pretrain") != bool(self.classes):
            raise ValueError("a segmentation model has classes, a pretrained one has none")
        if (self.kind == "quick") != (self.quick is not None):
            raise ValueError("a quickly trained model has its settings, others have none")
        values = [item.value for item in self.classes]
        if len(set(values)) < len(values) or max(values, default=0) > _LARGEST_VALUE:
            raise ValueError(
                f"classes need values of their own, up to {_LARGEST_VALUE}, got {values}"
            )
        return self

    @model_validator(mode="after")
    def _possible_numbers(self) -> Self:
        model = self.model
        for name in ("channels", "blocks", "heads"):
            if min(getattr(model, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(model, name)}")
        if max(model.neighbourhood, model.cluster_size) > _LARGEST_NEIGHBOURHOOD:
            raise ValueError(
                f"neighbourhood and cluster_size can be {_LARGEST_NEIGHBOURHOOD} at most, "
                f"got {model.neighbourhood} and {model.cluster_size}"
            )
        if model.mlp_ratio * min(model.channels) < 1:
            raise ValueError(f"mlp_ratio {model.mlp_ratio} leaves no channel of {model.channels}")
        if self.pixel_size is not None and min(self.pixel_size) <= 0:
            raise ValueError(f"a pixel has a size above 0, got {self.pixel_size}")
        return self

    @model_validator(mode="after")
    def _possible_statistics(self) -> Self:
        for name, numbers in self.normalization.statistics.items():
            for key, values in numbers:
                if len(values) != self.model.in_channels:
                    raise ValueError(
                        f"image {name} has {len(values)} numbers {key!r} for "
                        f"{self.model.in_channels} channels"
                    )
            if min(numbers.std) <= 0:
                raise ValueError(f"image {name} has a standard deviation of {min(numbers.std)}")
        return self


def learned_from(names: Sequence[str]) -> dict[str, Any]:
    """Say of what a network has learned, in few words however many images there are.

    Parameters
    ----------
    names : sequence of str
        Of the images.

    Returns
    -------
    dict
        The number of ``images``, and as ``sources`` the names of the first.
    """
    return {"images": len(names), "sources": list(names[:_MOST_NAMES])}


def model_path(path: Path) -> Path:
    """Find the model file of a run folder; a file stands for itself.

    For a run that has not finished, this is the file of the best checkpoint, or of the
    last one if there is no best.

    Parameters
    ----------
    path : Path
        Model file, run folder or checkpoint folder.

    Returns
    -------
    Path
        The model file.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    if not path.is_dir():
        return path
    if (path / MODEL_FILE).exists():
        return path / MODEL_FILE
    folder = path / "checkpoints"
    steps = list_checkpoints(folder)
    if not steps:
        raise CheckpointError(
            f"{path} holds no model: it has neither {MODEL_FILE} nor a checkpoint; "
            "give a model file or the folder of a run that was trained for a while"
        )
    best = RunState.read(checkpoint_path(folder, steps[-1])).best
    step = steps[-1] if best is None else best.step
    return checkpoint_path(folder, step) / MODEL_FILE


def read_metadata(path: Path) -> ModelMetadata:
    """Read what a model file or run folder says about its network, not the weights.

    Parameters
    ----------
    path : Path
        Model file or run folder.

    Raises
    ------
    CheckpointError
        If there is no model, it is damaged, or it comes from another program.
    """
    file = model_path(path)
    header = read_header(file)
    if METADATA_KEY not in header:
        raise CheckpointError(
            f"{file} is not a model of napari-affmae; "
            "checkpoints of the paper's own program are converted by import-checkpoint"
        )
    try:
        return ModelMetadata.model_validate(parse_json(header[METADATA_KEY].encode()))
    except (ValueError, ArithmeticError) as error:  # no JSON, or numbers that do not fit
        told = reason(error) if isinstance(error, ValidationError) else error
        raise CheckpointError(
            f"{file} describes its network in a way that this version does not know: {told}"
        ) from error


def training_facts(metadata: ModelMetadata, path: Path) -> TrainingFacts:
    """Read what a model says of its training.

    Parameters
    ----------
    metadata : ModelMetadata
        What its file says.
    path : Path
        The file, for messages.

    Raises
    ------
    CheckpointError
        If dates or numbers are none.
    """
    try:
        return TrainingFacts.model_validate(metadata.training)
    except ValidationError as error:
        raise CheckpointError(f"{path} says odd things of its training: {reason(error)}") from error


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the tensors of a safetensors file, without their values.

    The file has been found to be as long as they say.

    Raises
    ------
    CheckpointError
        If it is not a safetensors file, or is damaged.
    """
    with _opened(file) as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def read_header(file: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, without its weights.

    Raises
    ------
    CheckpointError
        If it is not a safetensors file, or is damaged.
    """
    with _opened(file) as opened:
        return opened.metadata() or {}


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, "np") as opened:
            yield opened
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the model {file}: {error}") from error
