"""Scores of strokes that were held out, on synthetic images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_affmae.config import LabelClass, QuickConfig
from napari_affmae.data import ImageSource, LabelEncoder, open_source
from napari_affmae.engine import QuickTraining, QuickView
from napari_affmae.engine.events import HeldOut, StepDone
from napari_affmae.engine.quick.held_out import find_strokes, likely_range
from napari_affmae.engine.quick.strokes import painted_blocks
from napari_affmae.errors import AffmaeError

CONFIG = QuickConfig(steps=30, hidden=16, device="cpu")
CLASSES = tuple(
    LabelClass(value=value, name=name, color="#123456")
    for value, name in ((1, "dark"), (2, "bright"))
)
ROWS = (10, 34, 58, 82)


@pytest.fixture(scope="module")
def halves() -> ImageSource:
    """A plane whose left half is dark and whose right half is bright."""
    plane = np.full((100, 150), 0.2)
    plane[:, 75:] = 0.6
    plane += 0.05 * np.random.default_rng(0).random(plane.shape)
    return open_source(plane, axes="YX", name="halves")


@pytest.fixture
def training(halves: ImageSource, pretrained: tuple[Path, list[Any]]) -> QuickTraining:
    return QuickTraining(pretrained[0], [halves], CLASSES, CONFIG)


def view(training: QuickTraining, source: ImageSource, labels: Any = None) -> QuickView:
    return QuickView(training.normalize(source), 0, slice(0, 100), slice(0, 150), labels)


def strokes(left: tuple[int, ...], right: tuple[int, ...]) -> NDArray[np.int64]:
    """Return a stroke in each half at each of `ROWS`, of the given values."""
    labels = np.zeros((100, 150), np.int64)
    for columns, values in ((slice(10, 60), left), (slice(90, 140), right)):
        for row, value in zip(ROWS, values, strict=False):
            labels[row : row + 4, columns] = value
    return labels


def judge(training: QuickTraining, source: ImageSource, labels: NDArray[np.int64]) -> HeldOut:
    for _ in training.update([view(training, source, labels)], view(training, source)):
        pass
    *steps, score = training.judge()
    assert all(isinstance(event, StepDone) for event in steps)
    assert isinstance(score, HeldOut)
    return score


def test_true_strokes_are_recognised_and_wrong_ones_are_not(training, halves):
    good = judge(training, halves, strokes((1, 1, 1, 1), (2, 2, 2, 2)))
    assert good.score > 0.95
    assert good.strokes == 8
    assert good.planes == 1
    assert good.alone == ()
    assert set(good.by_class) == {"dark", "bright"}
    assert good.low < good.score <= good.high
    # Half of the strokes of each half are said to be of the other class.
    wrong = judge(training, halves, strokes((1, 2, 1, 2), (2, 1, 2, 1)))
    assert wrong.strokes == 8
    assert wrong.score < 0.7
    partly = judge(training, halves, strokes((1, 1, 1, 2), (2, 2, 2, 2)))
    assert wrong.score < partly.score < good.score


def test_judging_changes_nothing_and_repeats(training, halves):
    labels = strokes((1, 1, 1), (2, 2, 2))
    first = judge(training, halves, labels)
    head = {name: value.clone() for name, value in training._module.head.state_dict().items()}
    *_, again = training.judge()
    assert again == first
    for name, value in training._module.head.state_dict().items():
        np.testing.assert_array_equal(value, head[name])


def test_the_only_stroke_of_a_class_is_learned_from_but_not_judged(training, halves, pretrained):
    few = judge(training, halves, strokes((1, 1), (2,)))
    assert few.score is None
    assert few.alone == ("bright",)
    labels = strokes((1, 1, 1), (2, 2, 2))
    three = (*CLASSES, LabelClass(value=3, name="middle", color="#654321"))
    other = QuickTraining(pretrained[0], [halves], three, CONFIG)
    labels[90:94, 60:90] = 3
    score = judge(other, halves, labels)
    assert score.alone == ("middle",)
    assert set(score.by_class) == {"dark", "bright"}


def test_no_fold_holds_all_strokes_of_a_class(training, halves):
    encoder = LabelEncoder(CLASSES, 0)
    for left, right in (((1, 1), (2, 2, 2, 2)), ((1, 1, 1), (2, 2))):
        blocks = painted_blocks([view(training, halves, strokes(left, right))], encoder, 0)
        found = find_strokes(blocks, seed=0)
        assert np.bincount(found.classes).tolist() == [len(left), len(right)]
        for index in (0, 1):
            assert len(set(found.folds[found.classes == index])) > 1
        again = find_strokes(blocks, seed=0)
        np.testing.assert_array_equal(again.folds, found.folds)


def test_a_stroke_across_blocks_is_one_stroke(training, halves):
    labels = np.zeros((100, 150), np.int64)
    labels[50:54, 5:145] = 1  # over three blocks of 64 pixels
    labels[80:84, 5:145] = 2
    views = [
        QuickView(training.normalize(halves), 0, slice(0, 100), columns, labels[:, columns])
        for columns in (slice(0, 70), slice(70, 150))
    ]
    found = find_strokes(painted_blocks(views, LabelEncoder(CLASSES, 0), 0), seed=0)
    assert len(found.classes) == 2
    assert found.folds.tolist() == [-1, -1]


def test_the_range_narrows_with_more_strokes():
    few, many = likely_range(0.9, 6), likely_range(0.9, 60)
    assert few[0] < many[0] < 0.9 < many[1] < few[1] <= 1
    assert likely_range(1.0, 4) == (pytest.approx(0.596, abs=0.001), 1.0)


def test_nothing_is_judged_before_anything_is_learned(training):
    with pytest.raises(AffmaeError, match="nothing to judge yet"):
        list(training.judge())
