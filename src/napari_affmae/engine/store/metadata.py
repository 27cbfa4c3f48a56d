"""What a model file says of its network, read without loading torch."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from napari_affmae.config import Classes, ModelConfig, QuickConfig, Settings
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


class ModelMetadata(Settings):
    """What a model file holds beside its weights."""

    format: Literal[1] = 1
    kind: Literal["pretrain", "segment", "quick"]
    model: ModelConfig
    normalization: NormalizationRecord
    crop: int = Field(ge=64)
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
        return self


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


def read_header(file: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, without its weights.

    Raises
    ------
    CheckpointError
        If it is not a safetensors file, or is damaged.
    """
    try:
        with safe_open(file, "np") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the model {file}: {error}") from error
