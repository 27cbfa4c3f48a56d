import math

import numpy as np
import pytest

from napari_affmae.engine.inference.scores import ConfusionMatrix


def test_scores_of_a_hand_made_matrix():
    confusion = ConfusionMatrix(3)
    confusion.add(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    scores = confusion.scores(["a", "b", "c"])
    assert scores.iou["a"] == pytest.approx(2 / 3)
    assert scores.iou["b"] == pytest.approx(1 / 2)
    assert scores.dice["a"] == pytest.approx(4 / 5)
    assert scores.dice["b"] == pytest.approx(2 / 3)
    assert math.isnan(scores.iou["c"])
    assert math.isnan(scores.dice["c"])
    assert scores.mean_iou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.mean_dice == pytest.approx((4 / 5 + 2 / 3) / 2)
    np.testing.assert_array_equal(scores.confusion, [[2, 1, 0], [0, 1, 0], [0, 0, 0]])


def test_a_class_that_is_only_predicted_counts_as_zero():
    confusion = ConfusionMatrix(2)
    confusion.add(np.array([0, 0]), np.array([0, 1]))
    assert confusion.scores("ab").iou["b"] == 0


def test_ignored_pixels_never_count():
    confusion = ConfusionMatrix(2)
    confusion.add(np.array([[0, -100], [-100, 1]]), np.array([[0, 1], [0, 1]]))
    assert confusion.counts.sum() == 2
    assert confusion.scores("ab").mean_iou == 1


def test_one_matrix_over_the_set_is_not_a_mean_of_scores():
    confusion = ConfusionMatrix(2)
    confusion.add(np.zeros(90, int), np.zeros(90, int))
    confusion.add(np.array([0] * 5 + [1] * 5), np.array([1] * 5 + [1] * 5))
    assert confusion.scores("ab").iou["a"] == pytest.approx(90 / 95)
    assert confusion.scores("ab").iou["b"] == pytest.approx(5 / 10)


def test_nothing_labelled_has_no_mean():
    confusion = ConfusionMatrix(2)
    confusion.add(np.full(4, -100), np.zeros(4, int))
    assert math.isnan(confusion.scores("ab").mean_iou)
