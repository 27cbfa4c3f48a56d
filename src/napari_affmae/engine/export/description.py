"""The description of a model in the words of bioimage.io (``bioimageio.yaml``)."""

import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from napari_affmae.engine.export.scaling import Scaling
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.model import PortableSegmenter

#: Names of the files of a package.
WEIGHTS, TORCHSCRIPT, ONNX = "weights.pt", "torchscript.pt", "model.onnx"
INPUT, OUTPUT = "test_input.npy", "test_output.npy"
DESCRIPTION = "bioimageio.yaml"
COVER, DOCUMENTATION = "cover.png", "README.md"
# As much of a tile is left out at its borders as `segment` shares between tiles by default.
_HALO_SHARE = 8
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_+\- ()]+")
_LONGEST_NAME = 64
_CITED = (
    {
        "text": "AFFMAE: Scalable and Efficient Vision Pretraining for Desktop Graphics Cards",
        "doi": "10.48550/arXiv.2602.16249",
    },
)
_TAGS = ("electron-microscopy", "semantic-segmentation", "2d", "pytorch", "napari-affmae")


@dataclass(frozen=True)
class Terms:
    """What a package says of people and rights.

    Attributes
    ----------
    authors : tuple of str
        Who made the model; may be empty.
    license_id : str or None
        An SPDX identifier, such as ``"CC-BY-4.0"``; None if none was chosen.
    """

    authors: tuple[str, ...] = ()
    license_id: str | None = None


def arguments(metadata: ModelMetadata, scaling: Scaling) -> dict[str, Any]:
    """Return the arguments that make a model's `PortableSegmenter`, as plain data."""
    quick = {} if metadata.quick is None else {"quick": metadata.quick.model_dump(mode="json")}
    model = metadata.model.model_dump(mode="json")
    classes = {"n_classes": len(metadata.classes)}
    return {"model": model, **classes, **scaling.arguments(), **quick}


def package_name(model: Path) -> str:
    """Name a package after a run folder or model file; bioimage.io allows few characters."""
    stem = model.parent.resolve().name if model.stem == "model" else model.stem
    name = _NOT_IN_NAMES.sub("-", stem).strip("- ") or "model"
    return f"AFFMAE segmentation {name}"[:_LONGEST_NAME].strip()


def halo(tile: int) -> int:
    """Return the width, pixels, of a tile's border that is predicted badly."""
    return tile // _HALO_SHARE


def describe(
    name: str,
    metadata: ModelMetadata,
    scaling: Scaling,
    tile: int,
    terms: Terms,
    folder: Path,
    format_version: str,
    opset: int | None,
) -> dict[str, Any]:
    """Describe a model.

    Parameters
    ----------
    name : str
        Name of the package.
    metadata : ModelMetadata
        Metadata of the model.
    scaling : Scaling
        How its input is normalised.
    tile : int
        Side of its input, pixels.
    terms : Terms
        Authors and licence.
    folder : Path
        Where the files lie that the description names.
    format_version : str
        Version of the format.
    opset : int or None
        Version of ONNX's operators; None where the folder has no graphs.

    Returns
    -------
    dict
        Plain data.
    """
    classes = metadata.classes
    names = ", ".join(item.name for item in classes)
    return {
        "type": "model",
        "format_version": format_version,
        "name": name,
        "description": f"Segments electron-microscopy images into: {names}."[:1024],
        "authors": [{"name": author} for author in terms.authors],
        "license": terms.license_id,
        "cite": list(_CITED),
        "tags": list(_TAGS),
        "documentation": _file(folder, DOCUMENTATION),
        "covers": [_file(folder, COVER)],
        "inputs": [_input(metadata, scaling, tile, folder)],
        "outputs": [_output(metadata, tile, folder)],
        "weights": {
            "pytorch_state_dict": _state_dict(metadata, scaling, folder),
            **({} if opset is None else _graphs(opset, folder)),
        },
        "config": {
            "napari_affmae": {
                "version": version("napari-affmae"),
                "classes": [item.model_dump(mode="json") for item in classes],
            }
        },
    }


def _input(metadata: ModelMetadata, scaling: Scaling, tile: int, folder: Path) -> dict[str, Any]:
    channels = metadata.model.in_channels
    names = [f"channel {number}" for number in range(channels)] if channels > 1 else ["intensity"]
    return {
        "id": "image",
        "description": "Grey values as they are in the file.",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": names},
            *_plane(metadata, lambda _: {"size": tile, "concatenable": True}),
        ],
        "data": {"type": "float32"},
        "preprocessing": scaling.steps(),
        "test_tensor": _file(folder, INPUT),
    }


def _output(metadata: ModelMetadata, tile: int, folder: Path) -> dict[str, Any]:
    return {
        "id": "probabilities",
        "description": "Probability of each class at each pixel.",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": [item.name for item in metadata.classes]},
            *_plane(
                metadata,
                lambda axis: {
                    "size": {"tensor_id": "image", "axis_id": axis},
                    "halo": halo(tile),
                },
            ),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": _file(folder, OUTPUT),
    }


def _plane(metadata: ModelMetadata, more: Any) -> list[dict[str, Any]]:
    """Describe rows and columns, and how large a pixel is where that is known."""
    axes = []
    for number, axis in enumerate("yx"):
        known = {}
        if metadata.pixel_size is not None:
            known = {"unit": "nanometer", "scale": metadata.pixel_size[number]}
        axes.append({"type": "space", "id": axis, **known, **more(axis)})
    return axes


def _state_dict(metadata: ModelMetadata, scaling: Scaling, folder: Path) -> dict[str, Any]:
    return {
        **_file(folder, WEIGHTS),
        "architecture": {
            "callable": PortableSegmenter.__name__,
            "import_from": "napari_affmae.model",
            "kwargs": arguments(metadata, scaling),
        },
        "pytorch_version": _torch_version(),
    }


def _graphs(opset: int, folder: Path) -> dict[str, Any]:
    parent = {"parent": "pytorch_state_dict"}
    return {
        "torchscript": {
            **_file(folder, TORCHSCRIPT),
            **parent,
            "pytorch_version": _torch_version(),
        },
        "onnx": {**_file(folder, ONNX), **parent, "opset_version": opset},
    }


def _torch_version() -> str:
    return torch.__version__.partition("+")[0]


def _file(folder: Path, name: str) -> dict[str, Any]:
    return {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
