"""Packages of the bioimage.io model zoo's format, made of segmentation models."""

from collections.abc import Generator, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import torch
from torch import Tensor

from napari_affmae.engine.events import Event, Exported, ExportStep, Notice
from napari_affmae.engine.export.description import (
    COVER,
    DOCUMENTATION,
    INPUT,
    ONNX,
    OUTPUT,
    TORCHSCRIPT,
    WEIGHTS,
    Terms,
    arguments,
    describe,
    package_name,
)
from napari_affmae.engine.export.documents import cover, documentation
from napari_affmae.engine.export.example import find_example
from napari_affmae.engine.export.graphs import Floats, Graphs, fits_a_graph
from napari_affmae.engine.export.scaling import Scaling
from napari_affmae.engine.export.specification import Specification
from napari_affmae.engine.results.new_file import NewFile
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.model_files import load_model
from napari_affmae.errors import AffmaeError, CheckpointError
from napari_affmae.files import write_errors
from napari_affmae.model import AFFMAE, PortableSegmenter
from napari_affmae.model.tokens.patches import SMALLEST_IMAGE

SUFFIX = ".zip"
_STEPS = 5


def export_bioimageio(
    model: Path,
    target: Path,
    *,
    tile: int | None = None,
    example: Path | None = None,
    authors: Sequence[str] = (),
    license_id: str | None = None,
    graphs: bool = True,
    overwrite: bool = False,
) -> Generator[Event, None, None]:
    """Write a segmentation model as a package that programs of bioimage.io read.

    Parameters
    ----------
    model : Path
        Run folder or model file.
    target : Path
        The file to write, ``.zip``; it appears when it is complete.
    tile : int, optional
        Side of the package's input, pixels; the model's crop by default.
    example : Path, optional
        Image whose middle becomes test and cover of the package; by default an image of
        the training if it is still there, else a synthetic one.
    authors : sequence of str
        Names of who made the model.
    license_id : str, optional
        SPDX identifier of the licence that the package is given.
    graphs : bool
        Whether it holds the network as TorchScript and ONNX too, which takes a minute and
        lets programs run it without this one.
    overwrite : bool
        Whether a file that is there may be replaced.

    Yields
    ------
    Event
        `ExportStep` before each step, a `Notice` where tiles are too large for TorchScript
        and ONNX, and `Exported` at the end. Closing the generator leaves nothing behind.

    Raises
    ------
    ValueError
        If the target has another ending, tiles are too small, or authors or licence are
        not what bioimage.io allows.
    AffmaeError
        If the target exists.
    CheckpointError
        If there is no segmentation model.
    ExportError
        If the extra ``bioimageio`` is not installed, or the format cannot express the
        model's normalisation, or a graph computes something else than the model.
    DataError, UnreadableFileError
        If the example cannot be used.
    UnwritableError
        If the file cannot be written.
    """
    _check_target(target, overwrite=overwrite)
    specification = Specification.load()
    terms = Terms(tuple(authors), license_id)
    specification.check(terms)
    with NewFile(target) as file, TemporaryDirectory(prefix="affmae-") as place:
        folder = Path(place)
        yield ExportStep("reading the model", 0, _STEPS)
        network, metadata, scaling = _load(model)
        tile = metadata.crop if tile is None else tile
        if tile < SMALLEST_IMAGE:
            raise ValueError(f"tile must be at least {SMALLEST_IMAGE} pixels, got {tile}")
        yield ExportStep("computing the example", 1, _STEPS)
        shown = find_example(model, metadata, tile, example)
        scaled = scaling.apply(shown)
        images = torch.from_numpy(scaled)[None]
        with torch.no_grad():
            output = network(images).numpy()
        converted, opset = (yield from _convert(network, images, output)) if graphs else ({}, None)
        name = package_name(model)
        text = documentation(name, metadata, scaling, shown, terms, model, graphs=bool(converted))
        contents = {
            WEIGHTS: _weights(network),
            **converted,
            INPUT: _npy(shown.pixels[None]),
            OUTPUT: _npy(output),
            COVER: cover(scaled, output[0], metadata.classes),
            DOCUMENTATION: text.encode(),
        }
        yield ExportStep("writing", 4, _STEPS)
        with write_errors(folder, sum(map(len, contents.values()))):
            for part, content in contents.items():
                (folder / part).write_bytes(content)
            described = describe(
                name, metadata, scaling, tile, terms, folder, specification.version, opset
            )
            specification.write(described, folder)
        with write_errors(target):
            _pack(folder, file.open())
            file.commit()
    yield Exported(target)


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.suffix.lower() != SUFFIX:
        raise ValueError(f"a package ends in {SUFFIX}, got {target.name!r}")
    if target.is_dir():
        raise AffmaeError(f"{target} is a folder; choose another file")
    if target.exists() and not overwrite:
        raise AffmaeError(f"{target} already exists; choose another file, or overwrite it")


def _load(model: Path) -> tuple[PortableSegmenter, ModelMetadata, Scaling]:
    module, metadata = load_model(model)
    if isinstance(module, AFFMAE):
        raise CheckpointError(
            f"{model} is a pretrained model, which knows no classes; fine-tune it first"
        )
    scaling = Scaling.of(metadata)
    portable = PortableSegmenter(**arguments(metadata, scaling))
    portable.network.load_state_dict(module.state_dict())
    return portable.eval(), metadata, scaling


def _convert(
    network: PortableSegmenter, images: Tensor, output: Floats
) -> Generator[Event, None, tuple[dict[str, bytes], int | None]]:
    """Convert the network, unless the images are too large; return files and ONNX's version."""
    if not fits_a_graph(network, images):
        yield Notice(
            f"inputs of {images.shape[-1]} pixels are too large for TorchScript and ONNX, so the "
            "package needs napari-affmae where it is used; choose a smaller tile to have both"
        )
        return {}, None
    yield ExportStep("converting to TorchScript", 2, _STEPS)
    recorded = Graphs(network, images, output)
    torchscript = recorded.torchscript()
    yield ExportStep("converting to ONNX", 3, _STEPS)
    onnx, opset = recorded.onnx()
    return {TORCHSCRIPT: torchscript, ONNX: onnx}, opset


def _weights(network: PortableSegmenter) -> bytes:
    """Encode weights as bioimage.io's programs load them: torch's own file, of tensors alone."""
    content = BytesIO()
    torch.save(dict(network.state_dict()), content)
    return content.getvalue()


def _pack(folder: Path, file: BinaryIO) -> None:
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)


def _npy(array: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    content = BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()
