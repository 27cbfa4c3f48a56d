"""TorchScript and ONNX compute what the network computes, also of images that they never saw."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from napari_affmae.config import ModelConfig
from napari_affmae.data import synthetic_em
from napari_affmae.engine import export_bioimageio, read_metadata
from napari_affmae.engine.events import Notice
from napari_affmae.engine.export import graphs
from napari_affmae.engine.export.graphs import INPUT_NAME, Graphs
from napari_affmae.engine.store.model_files import model_bytes
from napari_affmae.errors import ExportError
from napari_affmae.model import PortableSegmenter

Floats = NDArray[np.float32]
SIDE = 68  # no whole number of patches

# TorchScript will end, but its files are read by programs.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def images(seed: int) -> torch.Tensor:
    volume, _ = synthetic_em((1, SIDE, SIDE), seed)
    plane = volume.astype(np.float32)[None]
    return torch.from_numpy((plane - plane.mean()) / plane.std())


@pytest.fixture(scope="module")
def network() -> PortableSegmenter:
    """A network with weights that matter: those at the start of a training hardly do."""
    torch.manual_seed(0)
    config = ModelConfig(
        channels=(16, 32, 32, 48),
        blocks=(1, 1, 1, 1),
        heads=(2, 2, 4, 4),
        decoder_width=32,
        decoder_heads=2,
        decoder_hidden=48,
    )
    network = PortableSegmenter(config.model_dump(mode="json"), 3).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


@pytest.fixture(scope="module")
def recorded(network: PortableSegmenter) -> Graphs:
    with torch.no_grad():
        return Graphs(network, images(0), network(images(0)).numpy())


def run_torchscript(recorded: Graphs) -> Callable[[torch.Tensor], Floats]:
    loaded = torch.jit.load(io.BytesIO(recorded.torchscript()))

    def run(batch: torch.Tensor) -> Floats:
        with torch.no_grad():
            found: Floats = loaded(batch).numpy()
        return found

    return run


def run_onnx(recorded: Graphs) -> Callable[[torch.Tensor], Floats]:
    content, _ = recorded.onnx()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {INPUT_NAME: batch.numpy()})[0]


@pytest.mark.parametrize("runner", [run_torchscript, run_onnx])
def test_a_graph_computes_what_the_network_does(
    network: PortableSegmenter,
    recorded: Graphs,
    runner: Callable[[Graphs], Callable[[torch.Tensor], Floats]],
) -> None:
    run = runner(recorded)
    for seed in (0, 1, 2):
        with torch.no_grad():
            expected = network(images(seed)).numpy()
        assert expected.std(axis=(2, 3)).min() > 0.01
        np.testing.assert_allclose(run(images(seed)), expected, atol=1e-4)


def test_a_graph_that_computes_something_else_is_refused(network: PortableSegmenter) -> None:
    with torch.no_grad():
        expected = network(images(0)).numpy()
    wrong = Graphs(network, images(0), expected[:, ::-1].copy())
    with pytest.raises(ExportError, match="other probabilities"):
        wrong.torchscript()


def test_a_package_holds_graphs_unless_tiles_are_too_large(
    network: PortableSegmenter, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, metadata = tmp_path / "small.safetensors", read_metadata(run)
    changes = {"model": network.network.config, "classes": metadata.classes[:3]}
    model.write_bytes(model_bytes(network.network, metadata.model_copy(update=changes)))
    events = list(export_bioimageio(model, tmp_path / "b.zip"))
    assert not any(isinstance(event, Notice) for event in events)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert {"torchscript.pt", "model.onnx"} <= set(archive.namelist())
    monkeypatch.setattr(graphs, "MOST_TOKENS", 63)
    events = list(export_bioimageio(run, tmp_path / "a.zip"))
    (notice,) = (event for event in events if isinstance(event, Notice))
    assert "choose a smaller tile" in notice.message
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert not {"torchscript.pt", "model.onnx"} & set(archive.namelist())
