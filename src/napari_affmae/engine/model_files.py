"""Networks as single files: safetensors whose header says everything else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_affmae.config import LabelClass, ModelConfig, QuickConfig, Settings
from napari_affmae.data import NormalizationRecord
from napari_affmae.engine.checkpoints import (
    MODEL_FILE,
    checkpoint_path,
    list_checkpoints,
    read_state,
    read_tensors,
)
from napari_affmae.errors import CheckpointError
from napari_affmae.model import AFFMAE, AFFSegmenter, QuickSegmenter

_KEY = "napari-affmae"
_SHOWN_MISMATCHES = 3


class ModelMetadata(Settings):
    """What a model file holds beside its weights."""

    format: Literal[1] = 1
    kind: Literal["pretrain", "segment", "quick"]
    model: ModelConfig
    normalization: NormalizationRecord
    crop: int = Field(ge=64)
    classes: tuple[LabelClass, ...] = ()
    ignore_value: int | None = None
    quick: QuickConfig | None = None
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _classes_of_a_segmenter(self) -> Self:
        if (self.kind != "pretrain") != bool(self.classes):
            raise ValueError("a segmentation model has classes, a pretrained one has none")
        if (self.kind == "quick") != (self.quick is not None):
            raise ValueError("a quickly trained model has its settings, others have none")
        return self

    def build(self) -> AFFMAE | AFFSegmenter | QuickSegmenter:
        """Make the network, with random weights."""
        if self.kind == "pretrain":
            return AFFMAE(self.model)
        if self.quick is not None:
            quick = self.quick
            return QuickSegmenter(self.model, len(self.classes), quick.hidden, quick.smoothness)
        return AFFSegmenter(self.model, len(self.classes))


def model_bytes(module: torch.nn.Module, metadata: ModelMetadata) -> bytes:
    """Encode a network as the content of a model file.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    metadata : ModelMetadata
        What belongs to it.

    Returns
    -------
    bytes
        Of a safetensors file.
    """
    tensors = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    return save(tensors, {_KEY: metadata.model_dump_json()})


def model_path(path: Path) -> Path:
    """Find the model file of a run folder; a file stands for itself.

    A run that was not finished has its best checkpoint's, else its last one's.

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
    best = read_state(checkpoint_path(folder, steps[-1]))["best"]
    step = steps[-1] if best is None else best["step"]
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
    try:
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the model {file}: {error}") from error
    if _KEY not in header:
        raise CheckpointError(
            f"{file} is not a model of napari-affmae; "
            "checkpoints of the paper's own program are converted by import-checkpoint"
        )
    try:
        return ModelMetadata.model_validate(json.loads(header[_KEY]))
    except ValidationError as error:
        raise CheckpointError(
            f"{file} describes its network in a way that this version does not know: {error}"
        ) from error


def load_model(path: Path) -> tuple[AFFMAE | AFFSegmenter | QuickSegmenter, ModelMetadata]:
    """Load a network, on the CPU and in evaluation mode.

    Parameters
    ----------
    path : Path
        Model file or run folder.

    Returns
    -------
    module : AFFMAE, AFFSegmenter or QuickSegmenter
        The network.
    metadata : ModelMetadata
        What belongs to it.

    Raises
    ------
    CheckpointError
        If there is no model, it is damaged, or its weights do not fit.
    """
    metadata = read_metadata(path)
    module = metadata.build()
    load_weights(module, model_path(path))
    return module.eval(), metadata


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a model file's weights into a network that has their shapes.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    path : Path
        A safetensors file.

    Raises
    ------
    CheckpointError
        If tensors are missing, left over, or have other shapes; names the first ones.
    """
    tensors = read_tensors(path)
    problems = _mismatches(module.state_dict(), tensors)
    if problems:
        more = len(problems) - _SHOWN_MISMATCHES
        shown = "; ".join(problems[:_SHOWN_MISMATCHES]) + (f"; and {more} more" if more > 0 else "")
        raise CheckpointError(
            f"the weights in {path} do not fit this network: {shown}. "
            "They belong to another preset, patch size, or number of channels or classes"
        )
    module.load_state_dict(tensors)


def _mismatches(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    problems = []
    for name, tensor in wanted.items():
        shape = tuple(tensor.shape)
        if name not in found:
            problems.append(f"{name} {shape} is missing")
        elif found[name].shape != tensor.shape:
            problems.append(
                f"{name} has shape {tuple(found[name].shape)} in the file and {shape} here"
            )
    problems += [f"{name} is not part of it" for name in found if name not in wanted]
    return problems
