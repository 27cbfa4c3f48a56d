"""Label budgets, and what is kept apart."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from accuracy.datasets import Dataset, labelled_sets, pretraining_images, spread_planes

from napari_affmae.config import NormalizationConfig
from napari_affmae.data import normalize_sources


@pytest.mark.parametrize(
    ("counts", "budget", "planes"),
    [
        ([1] * 10, "quarter", {0, 9}),
        ([1] * 6, "one", {3}),
        ([1] * 6, "quarter", {0, 5}),
        ([3, 1], "quarter", {2}),
        ([3, 2], "all", {0, 1, 2, 3, 4}),
    ],
)
def test_planes_are_counted_over_all_files(
    counts: list[int], budget: str, planes: set[int]
) -> None:
    chosen = spread_planes(counts, budget)
    starts = np.cumsum([0, *counts])
    assert {int(starts[file]) + plane for file, own in enumerate(chosen) for plane in own} == planes


def test_a_quarter_of_a_stack_is_spread_evenly() -> None:
    (chosen,) = spread_planes([70], "quarter")
    assert len(chosen) == 18
    assert (chosen[0], chosen[-1]) == (0, 69)
    assert set(np.diff(chosen)) == {4, 5}


def test_a_budget_takes_planes_with_their_labels(data: Path) -> None:
    dataset = Dataset.open(data / "cells")
    assert (dataset.name, len(dataset.classes)) == ("cells", 3)
    ((image, labels),) = dataset.take("one")
    whole, all_labels = dataset.train[0]
    assert np.array_equal(image.read(0), whole.read(2))
    assert np.array_equal(labels.read(0), all_labels.read(2))
    part, complete = (
        normalize_sources([source], NormalizationConfig())[0] for source in (image, whole)
    )
    assert np.array_equal(part.read(0), complete.read(2))


def test_sets_are_folders_with_both_parts(data: Path) -> None:
    assert labelled_sets(data) == ["cells"]


def test_networks_are_pretrained_on_training_and_unlabelled_images(data: Path) -> None:
    names = [source.name for source in pretraining_images(data, ["cells"])]
    assert names == ["u.tif", "a.tif", "b.tif"]


def test_a_copy_of_a_validation_image_is_refused(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "cells" / "val" / "images" / "c.tif", tmp_path / "other name.tif")
    with pytest.raises(ValueError, match="validation images must not be pretrained on: other name"):
        pretraining_images(data, ["cells"], [tmp_path])
