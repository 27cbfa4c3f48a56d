"""Checkpoints of the paper's own program."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from napari_affmae.config import LabelClass, NormalizationConfig
from napari_affmae.data import NormalizationRecord, default_classes
from napari_affmae.engine.store.metadata import METADATA_KEY, ModelMetadata, read_header
from napari_affmae.engine.store.model_files import model_bytes
from napari_affmae.engine.store.tensors import read_tensors
from napari_affmae.errors import CheckpointError
from napari_affmae.files import replace_bytes
from napari_affmae.model import AFFSegmenter, from_reference_state

_WRAPPERS = ("model", "state_dict", "model_state_dict")
_PREFIX = "module."
# Side of the crops that the published models were trained on.
_CROP = 512


def import_checkpoint(
    path: Path, out: Path, task: Literal["pretrain", "segment"] = "pretrain"
) -> ModelMetadata:
    """Convert a checkpoint of the paper's own program to a model file.

    Code that it may contain is not run. It has no record of the normalisation, so
    each image is normalised by itself with the default settings; classes are named
    by numbers.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file, or one that `torch.save` wrote; weights alone,
        or under ``model``, ``state_dict`` or ``model_state_dict``.
    out : Path
        Model file to write or replace.
    task : {"pretrain", "segment"}
        What the checkpoint was trained for.

    Returns
    -------
    ModelMetadata
        Metadata of the file that was written.

    Raises
    ------
    CheckpointError
        If it cannot be read safely or is not of this network, or is a model file
        already.
    """
    state = _strip(_read_foreign(path) if path.suffix == ".safetensors" else _read_pickle(path))
    try:
        module = from_reference_state(state, task=task)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not hold the weights of an AFFMAE network for {task}: {error}"
        ) from error
    classes: tuple[LabelClass, ...] = ()
    if isinstance(module, AFFSegmenter):
        classes = default_classes(range(module.num_classes))
    metadata = ModelMetadata(
        kind=task,
        model=module.config,
        normalization=NormalizationRecord(config=NormalizationConfig(), statistics={}),
        crop=_CROP,
        classes=classes,
        training={"imported_from": path.name},
    )
    replace_bytes(out, model_bytes(module, metadata))
    return metadata


def _read_foreign(path: Path) -> Mapping[str, Tensor]:
    if METADATA_KEY in read_header(path):
        raise CheckpointError(
            f"{path} is a model of napari-affmae already, and importing it would lose what it "
            "says of its training; use it as it is"
        )
    return read_tensors(path)


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():  # unusual pickles warn, and then load or raise
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        found = f"objects ({foreign[1]})" if foreign else "other objects"
        raise CheckpointError(
            f"{path} was not loaded: beside tensors it holds {found}, and such a file could run "
            "any program; where it was written, save the weights alone with "
            "torch.save(model.state_dict(), ...), and import that"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} is no file that torch.save wrote, or it is damaged or cut short; "
            "copy it again, or give another .pth or .safetensors file of weights"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__} instead of weights with names; "
            "give a file of a network's state_dict"
        )
    return content


def _strip(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Unwrap the weights, and remove the prefix that parallel training adds to names."""
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return {
        name.removeprefix(_PREFIX): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
