"""Tensors in safetensors files."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from napari_affmae.engine.store.checkpoints import damaged


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Encode named tensors as the content of a safetensors file."""
    return save(dict(tensors), metadata)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    CheckpointError
        If it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from error
