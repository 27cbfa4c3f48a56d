"""Networks as single safetensors files, whose headers hold the metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from napari_affmae.engine.store.metadata import (
    METADATA_KEY,
    ModelMetadata,
    model_path,
    read_metadata,
    read_shapes,
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
    # Not pydantic's own JSON, which has no place for names of files that are not Unicode.
    header = json.dumps(metadata.model_dump(mode="json"), allow_nan=False)
    return tensor_bytes(tensors, {METADATA_KEY: header})


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
    metadata, file = read_metadata(path), model_path(path)
    _check_size(metadata, file)
    module = build_network(metadata)
    load_weights(module, file)
    return module.eval(), metadata


def _check_size(metadata: ModelMetadata, file: Path) -> None:
    """Compare the network with the sizes in the file's header, before memory is taken for it.

    Raises
    ------
    CheckpointError
        If they differ, or there can be no such network.
    """
    found = read_shapes(file)
    blocks = sum(metadata.model.blocks)
    if blocks > len(found):
        raise CheckpointError(f"{file} describes {blocks} blocks and holds {len(found)} tensors")
    try:
        with torch.device("meta"):
            wanted = build_network(metadata).state_dict()
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} describes a network that cannot be: {error}") from error
    _compare(_shapes(wanted), found, file)


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
        If tensors are missing, left over, have other shapes, or hold numbers that are
        not finite; names the first ones.
    """
    tensors, wanted = read_tensors(path), module.state_dict()
    _compare(_shapes(wanted), _shapes(tensors), path)
    broken = [name for name, tensor in tensors.items() if not _usable(tensor, wanted[name])]
    if broken:
        raise CheckpointError(
            f"the weights in {path} are not finite numbers: {_shown(broken, ', ')}. The file was "
            "damaged or changed: take a copy of it, or another model"
        )
    module.load_state_dict(tensors)


def _usable(tensor: Tensor, wanted: Tensor) -> bool:
    if tensor.is_floating_point() != wanted.is_floating_point() or tensor.is_complex():
        return False
    # A type of eight bits has no test of its own.
    return bool(tensor.float().isfinite().all())


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _shown(problems: Sequence[str], separator: str) -> str:
    more = len(problems) - _SHOWN_MISMATCHES
    last = [f"and {more} more"] if more > 0 else []
    return separator.join([*problems[:_SHOWN_MISMATCHES], *last])


def _compare(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    problems = []
    for name, shape in wanted.items():
        if name not in found:
            problems.append(f"{name} {shape} is missing")
        elif found[name] != shape:
            problems.append(f"{name} has shape {found[name]} in the file and {shape} here")
    problems += [f"{name} is not part of it" for name in found if name not in wanted]
    if problems:
        raise CheckpointError(
            f"the weights in {path} do not fit this network: {_shown(problems, '; ')}. "
            "They belong to another preset, patch size, or number of channels or classes"
        )
