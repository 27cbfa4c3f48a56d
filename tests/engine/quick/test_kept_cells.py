"""Features on disk: a network is not asked again for what it has said of the same pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_affmae.config import LabelClass, QuickConfig
from napari_affmae.data import open_source
from napari_affmae.engine import QuickTraining, QuickView
from napari_affmae.engine.events import ViewPredicted
from napari_affmae.engine.store.kept_features import KeptFeatures

CLASSES = [LabelClass(value=n, name=str(n), color="#123456") for n in (1, 2)]
CONFIG = QuickConfig(steps=5, hidden=8, device="cpu")


class Painter:
    """Trains on two strokes in a training of its own, and counts what the network is asked for."""

    def __init__(self, pretrained: Any, folder: Path | None) -> None:
        self.pretrained = pretrained
        self.kept = None if folder is None else KeptFeatures(folder, lambda: 10**9)

    def paint(self, pixels: Any) -> tuple[int, Any]:
        image = open_source(pixels, axes="ZYX", name="image")
        training = QuickTraining(self.pretrained, [image], CLASSES, CONFIG, kept=self.kept)
        asked: list[int] = []
        training._module.encoder.register_forward_pre_hook(lambda *_: asked.append(1))
        strokes = np.zeros((image.height, image.width), np.int64)
        strokes[10:20, 10:20], strokes[40:50, 60:70] = 1, 2
        view = QuickView(training.normalize(image), 0, slice(None), slice(None), strokes)
        *_, predicted = training.update([view], view)
        assert isinstance(predicted, ViewPredicted)
        if self.kept is not None:
            self.kept.wait()
        return len(asked), predicted.probabilities


@pytest.fixture(scope="module")
def run(pretrained: tuple[Path, list[Any]]) -> Path:
    return pretrained[0]


def test_another_process_computes_nothing_again(volume, run, tmp_path, start_script):
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, volume[0], photometric="minisblack")
    features, result = tmp_path / "features", tmp_path / "result.npz"
    first, predicted = Painter(run, features).paint(volume[0])
    assert first == len(list(features.iterdir())) > 1
    names = {"IMAGE": str(image), "PRETRAINED": str(run), "RESULT": str(result)}
    process = start_script("paint.py", FEATURES=str(features), **names)
    process.join()
    assert process.exitcode == 0
    told = np.load(result)
    assert told["tiles"] == 0
    np.testing.assert_array_equal(told["probabilities"], predicted)

    process = start_script("paint.py", FEATURES=str(tmp_path / "none yet"), **names)
    process.join()
    assert process.exitcode == 0
    told = np.load(result)
    assert told["tiles"] == first
    assert not told["compiler"]  # it would take a second, and holds up the window


def test_other_pixels_or_weights_are_computed(volume, run, tmp_path):
    pixels = volume[0]
    painter = Painter(run, tmp_path)
    first, predicted = painter.paint(pixels)
    assert first > 1
    _, without = Painter(run, None).paint(pixels)
    np.testing.assert_array_equal(predicted, without)
    changed = pixels.copy()
    changed[0, -1, -1] ^= 1
    assert painter.paint(changed)[0] > 0
    # Brighter, which the normalisation takes out: the network sees the same.
    tiles, _ = painter.paint(pixels.astype(np.uint16) + 7)
    assert tiles == 0
    # Of the same shape, and with the same tiles.
    for other in ("em-nano", None):  # random weights follow from the seed
        computed = [Painter(other, tmp_path).paint(pixels)[0] for _ in range(2)]
        assert computed == [1, 0]


def test_damaged_features_are_computed_again(volume, run, tmp_path):
    painter = Painter(run, tmp_path)
    first, predicted = painter.paint(volume[0])
    for file in tmp_path.iterdir():
        file.write_bytes(b"x" * file.stat().st_size)
    again, same = painter.paint(volume[0])
    assert again == first
    np.testing.assert_array_equal(predicted, same)
    assert painter.paint(volume[0])[0] == 0
