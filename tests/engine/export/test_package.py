import io
import json
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bioimageio.spec
import numpy as np
import pytest
import torch
from PIL import Image

from napari_affmae.data import synthetic_sample
from napari_affmae.engine import export_bioimageio, load_model, read_metadata
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.events import Event, ExportStep
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.errors import (
    AffmaeError,
    CheckpointError,
    DataError,
    ExportError,
    UnwritableError,
)

TILE = 64
# To convert the network takes most of an export.
export = partial(export_bioimageio, graphs=False)

# The library leaves the files open that it checks.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"
)


def part(package: Path, name: str) -> bytes:
    with zipfile.ZipFile(package) as archive:
        return archive.read(name)


def array(package: Path, name: str) -> np.ndarray:
    loaded: np.ndarray = np.load(io.BytesIO(part(package, name)), allow_pickle=False)
    return loaded


def scaled(pixels: np.ndarray, run: Path) -> np.ndarray:
    """Scale an example as the description says, with percentiles of its own."""
    record = read_metadata(run).normalization
    low, high = np.percentile(pixels, [record.config.low, record.config.high])
    clipped: np.ndarray = np.clip((pixels - low) / (high - low), 0, 1)
    return clipped.astype(np.float32)


def normalized(pixels: np.ndarray, run: Path) -> np.ndarray:
    """Take out the mean and the deviation of the training image from a scaled one."""
    (numbers,) = read_metadata(run).normalization.statistics.values()
    return ((pixels - numbers.mean[0]) / numbers.std[0]).astype(np.float32)


def test_bioimageio_accepts_the_package_and_it_says_what_it_is(package: Path, run: Path) -> None:
    described = bioimageio.spec.load_model_description(package, format_version="latest")
    (image,), (probabilities,) = described.inputs, described.outputs
    assert [axis.size for axis in image.axes][1:] == [1, TILE, TILE]
    assert [axis.scale for axis in image.axes][2:] == [5.0, 4.0]
    assert {axis.unit for axis in image.axes[2:]} == {"nanometer"}
    names = [item.name for item in read_metadata(run).classes]
    assert probabilities.axes[1].channel_names == names
    assert [axis.halo for axis in probabilities.axes[2:]] == [8, 8]
    assert (image.dtype, probabilities.dtype) == ("float32", "float32")
    assert [author.name for author in described.authors] == ["Ada"]
    assert described.license == "CC0-1.0"
    documentation = part(package, "README.md").decode()
    assert "# Validation" in documentation
    assert all(f"| {name} |" in documentation for name in names)


def test_the_weights_are_tensors_that_the_named_class_takes(package: Path, run: Path) -> None:
    described = bioimageio.spec.load_model_description(package, format_version="latest")
    architecture = described.weights.pytorch_state_dict.architecture
    network = getattr(
        __import__(architecture.import_from, fromlist=["x"]), str(architecture.callable)
    )(**architecture.kwargs)
    state = torch.load(io.BytesIO(part(package, "weights.pt")), weights_only=True)
    network.load_state_dict(state, strict=True)
    images = scaled(array(package, "test_input.npy"), run)
    with torch.inference_mode():
        found = network.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, array(package, "test_output.npy"), atol=1e-4)


def test_the_package_predicts_what_this_program_predicts(package: Path, run: Path) -> None:
    module, _ = load_model(run)
    assert not isinstance(module, str)
    predictor = Predictor(module, Runtime(plan_device("cpu", "fp32")), TILE, 0.25, 1)
    images = normalized(scaled(array(package, "test_input.npy"), run), run)
    (found,) = predictor.tiles(torch.from_numpy(images))
    np.testing.assert_allclose(found, array(package, "test_output.npy"), atol=1e-4)
    assert found.shape == (1, 4, TILE, TILE)


def test_the_example_is_the_middle_of_a_training_image(
    package: Path, volume: tuple[np.ndarray, np.ndarray]
) -> None:
    planes, rows, columns = volume[0].shape
    top, left = (rows - TILE) // 2, (columns - TILE) // 2
    middle = volume[0][planes // 2, top : top + TILE, left : left + TILE]
    np.testing.assert_array_equal(array(package, "test_input.npy")[0, 0], middle)
    assert "image.tif, a training image" in part(package, "README.md").decode()
    with Image.open(io.BytesIO(part(package, "cover.png"))) as cover:
        assert cover.size == (512, 256)


def test_without_its_images_the_example_is_synthetic(run: Path, tmp_path: Path) -> None:
    list(export(run / "model.safetensors", tmp_path / "a.zip"))
    volume, _, _ = synthetic_sample()
    np.testing.assert_array_equal(
        array(tmp_path / "a.zip", "test_input.npy")[0, 0], volume[16, 96:160, 96:160]
    )
    assert "says nothing of how good" in part(tmp_path / "a.zip", "README.md").decode()


def test_an_image_can_be_given_and_may_be_smaller_than_a_tile(run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (70, 50), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    target = tmp_path / "a.zip"
    list(export(run, target, tile=80, example=tmp_path / "small.png"))
    taken = array(target, "test_input.npy")[0, 0]
    assert taken.shape == (80, 80)
    np.testing.assert_array_equal(taken[:70, :50], pixels)


def test_each_step_is_told_and_closing_leaves_nothing(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    steps: list[Event] = []
    events = export(run, target)
    for event in events:
        steps.append(event)
        if len(steps) == 3:
            events.close()
    assert all(isinstance(step, ExportStep) for step in steps)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_on_demand(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    target.write_bytes(b"mine")
    with pytest.raises(AffmaeError, match="already exists"):
        list(export(run, target))
    assert target.read_bytes() == b"mine"
    list(export(run, target, overwrite=True))
    assert zipfile.is_zipfile(target)


def test_a_pretrained_model_is_refused(
    pretrained: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="fine-tune it first"):
        list(export(pretrained[0], tmp_path / "a.zip"))
    assert list(tmp_path.iterdir()) == []


def test_a_normalisation_that_cannot_be_described_is_refused(
    changed: Callable[..., Path], run: Path, tmp_path: Path
) -> None:
    record = read_metadata(run).normalization
    for changes, reason in (
        ({"config": record.config.model_copy(update={"clahe": True})}, "CLAHE"),
        ({"statistics": {}}, "does not know the mean"),
    ):
        model = changed(normalization=record.model_copy(update=changes).model_dump())
        with pytest.raises(ExportError, match=reason):
            list(export(model, tmp_path / "a.zip"))


def test_inverted_images_are_inverted(
    changed: Callable[..., Path], run: Path, tmp_path: Path
) -> None:
    record = read_metadata(run).normalization
    inverted = record.config.model_copy(update={"invert": True})
    model = changed(normalization=record.model_copy(update={"config": inverted}).model_dump())
    list(export(model, tmp_path / "a.zip"))
    module, _ = load_model(run)
    assert not isinstance(module, str)
    predictor = Predictor(module, Runtime(plan_device("cpu", "fp32")), TILE, 0.25, 1)
    image = 1 - scaled(array(tmp_path / "a.zip", "test_input.npy"), run)
    (found,) = predictor.tiles(torch.from_numpy(normalized(image, run)))
    np.testing.assert_allclose(found, array(tmp_path / "a.zip", "test_output.npy"), atol=1e-4)


def test_programs_that_know_few_steps_find_no_others(package: Path) -> None:
    described = bioimageio.spec.load_model_description(package, format_version="latest")
    steps = {step.id for step in described.inputs[0].preprocessing}
    assert steps - {"ensure_dtype"} == {"scale_range", "clip"}


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("a.tif", {}, "ends in .zip"),
        ("a.zip", {"tile": 32}, "at least 64"),
        ("a.zip", {"license_id": "mine"}, "SPDX"),
        ("a.zip", {"authors": ["a/b"]}, "without slashes"),
    ],
)
def test_wrong_arguments_are_refused(
    run: Path, tmp_path: Path, name: str, arguments: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        list(export(run, tmp_path / name, **arguments))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(AffmaeError, match="is a folder"):
        list(export(run, tmp_path / "folder.zip", overwrite=True))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UnwritableError, match="no folder above it is a file"):
        list(export(run, tmp_path / "file" / "a.zip"))


def test_an_example_without_contrast_is_refused(run: Path, tmp_path: Path) -> None:
    Image.new("L", (80, 80), 7).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match="same value everywhere"):
        list(export(run, tmp_path / "a.zip", example=tmp_path / "grey.png"))


def test_without_the_library_it_says_what_to_install(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    with pytest.raises(ExportError, match=r"napari-affmae\[bioimageio\]"):
        list(export(run, tmp_path / "a.zip"))


def test_the_values_and_colours_of_classes_are_there_for_programs(package: Path, run: Path) -> None:
    described = bioimageio.spec.load_model_description(package, format_version="latest")
    written = described.config.model_dump(mode="json")["napari_affmae"]["classes"]
    classes = [item.model_dump(mode="json") for item in read_metadata(run).classes]
    assert json.loads(json.dumps(written)) == classes
