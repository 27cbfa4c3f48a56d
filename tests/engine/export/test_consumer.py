"""bioimage.io's own library tests a package and predicts with it."""

from pathlib import Path

import numpy as np
import pytest

from napari_affmae.config import SegmentConfig
from napari_affmae.data import open_source
from napari_affmae.engine import export_bioimageio, load_model
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.inference.blending import Wanted, class_values
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.inference.segmentation import normalize_like

core = pytest.importorskip(
    "bioimageio.core", reason="needs an older pydantic than the rest; see tox's env bioimageio"
)

# The library leaves the files open that it reads, and loads TorchScript as torch no longer advises.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:.*torch.jit.load:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def complete(run: Path) -> Path:
    """A package of the run with TorchScript and ONNX."""
    target = run.parent / "complete.zip"
    list(export_bioimageio(run, target))
    return target


def test_the_package_passes_all_tests_of_bioimageio(complete: Path) -> None:
    summary = core.test_model(complete, devices=["cpu"])
    assert summary.status == "passed", summary.format()


def test_an_image_of_several_tiles_is_segmented_as_here(
    package: Path, run: Path, volume: tuple[np.ndarray, np.ndarray]
) -> None:
    """Here tiles are blended, and mean and deviation are those of the image."""
    source = open_source(volume[0][3])
    module, metadata = load_model(run)
    config = SegmentConfig()
    predictor = Predictor(
        module, Runtime(plan_device("cpu", "fp32")), metadata.crop, config.overlap, 1
    )
    wanted = Wanted(class_values(metadata.classes), "float32")
    bands = list(predictor.planes(normalize_like(source, metadata), [0], wanted))
    ours = np.concatenate([b.probabilities for b in bands if b.probabilities is not None], axis=1)
    predicted = core.predict(
        model=package,
        inputs=volume[0][3][None, None].astype(np.float32),
        blocksize_parameter=0,
    )
    theirs = predicted.members["probabilities"].data.to_numpy()[0]
    assert theirs.shape == ours.shape
    # Tiles in other places would differ by as much as the image itself varies.
    assert (np.abs(theirs - ours).mean((1, 2)) < 0.4 * ours.std((1, 2))).all()
