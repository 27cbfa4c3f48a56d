"""Networks as single safetensors files, whose headers hold the metadata."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from napari_affmae.engine.store.metadata import (
    METADATA_KEY,
    ModelMetadata,
    model_path,
    read_metadata,
)
from napari_affmae.engine.store.tensors import read_tensors, tensor_bytes
from napari_affmae.errors import CheckpointError
from napari_affmae.model import AFFMAE, AFFSegmenter, QuickSegmenter

_SHOWN_MISMATCHES = 3


def build_network(metadata: ModelMetadata) -> AFFMAE | AFFSegmenter | QuickSegmenter:
    """Make the network that a model file describes, with random weights."""
    if metadata.kind == "pretrain":
        return AFFMAE(metadata.model)
    if metadata.quick is not None:
        quick = metadata.quick
        return QuickSegmenter(metadata.model, len(metadata.classes), quick.hidden, quick.smoothness)
    return AFFSegmenter(metadata.model, len(metadata.classes))


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
        The content of a safetensors file.
    """
    tensors = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    return tensor_bytes(tensors, {METADATA_KEY: metadata.model_dump_json()})


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
    module = build_network(metadata)
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
