"""Names and colours of classes that come from the files of labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_affmae.config import LabelClass
from napari_affmae.data import default_class
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.layers.label_layers import classes_of

CYTOPLASM = LabelClass(value=0, name="cytoplasm", color="#101112")
NAMED = (
    LabelClass(value=1, name="membrane", color="#ff8000"),
    LabelClass(value=3, name="mitochondria", color="#0010ff"),
)


def open_labels(
    viewer: Any, path: Path, labels: np.ndarray, classes: tuple[LabelClass, ...]
) -> Labels:
    with PlaneFile(path, len(labels), classes=classes) as file:
        for plane in labels.astype(np.uint8):
            file.write(plane)
    (layer,) = viewer.open(path, plugin="napari", layer_type="labels")
    return layer  # type: ignore[no-any-return]


def wait(dock: FinetuneDock, labels: Labels, qtbot: Any) -> None:
    annotation = dock.annotation
    qtbot.waitUntil(
        lambda: not annotation._files.is_reading and not annotation.painted(labels).is_looking,
        timeout=60_000,
    )


@pytest.mark.parametrize("classes", [NAMED, (CYTOPLASM, *NAMED)])
def test_classes_are_named_as_the_file_says(
    dock: FinetuneDock,
    viewer: Any,
    image: Any,
    volume: Any,
    tmp_path: Path,
    qtbot: Any,
    classes: tuple[LabelClass, ...],
) -> None:
    labels = open_labels(viewer, tmp_path / "truth.tif", volume[1], classes)
    dock.pairs.set_pair(image, labels)
    wait(dock, labels, qtbot)
    assert {0, 1, 2, 3} == set(np.unique(volume[1]).tolist())
    expected = sorted((*classes, default_class(2)), key=lambda item: item.value)
    assert dock.classes.classes() == tuple(expected)
    assert dock.annotation.ignore_value == (None if CYTOPLASM in classes else 0)
    assert classes_of(labels) == tuple(expected)


def test_the_files_of_all_pairs_name_classes(
    dock: FinetuneDock, viewer: Any, image: Any, volume: Any, tmp_path: Path, qtbot: Any
) -> None:
    more = LabelClass(value=2, name="vesicles", color="#00c040")
    other = LabelClass(value=1, name="another membrane", color="#404040")
    another = viewer.add_image(volume[0], name="more")
    first = open_labels(viewer, tmp_path / "truth.tif", volume[1], NAMED)
    second = open_labels(viewer, tmp_path / "more.tif", volume[1], (other, more))
    dock.pairs.set_pair(image, first)
    dock.pairs.set_pair(another, second)
    for labels in (first, second):
        wait(dock, labels, qtbot)
    # What the first file says of a value goes before what the second one says.
    assert dock.classes.classes() == (NAMED[0], more, NAMED[1])
    assert classes_of(second) == dock.classes.classes()


def test_classes_that_the_user_has_named_stay(
    dock: FinetuneDock, viewer: Any, image: Any, volume: Any, tmp_path: Path, qtbot: Any
) -> None:
    mine = LabelClass(value=1, name="mine", color="#123456")
    labels = open_labels(viewer, tmp_path / "truth.tif", volume[1], NAMED)
    dock.classes.set_classes([mine], ignore_value=0)
    dock.pairs.set_pair(image, labels)
    wait(dock, labels, qtbot)
    assert dock.classes.classes() == (mine, default_class(2), default_class(3))


def test_a_file_that_only_napari_reads_names_none(
    dock: FinetuneDock, viewer: Any, image: Any, volume: Any, tmp_path: Path, qtbot: Any
) -> None:
    path = tmp_path / "truth.npy"
    np.save(path, volume[1].astype(np.uint8))
    (labels,) = viewer.open(path, plugin="napari", layer_type="labels")
    dock.pairs.set_pair(image, labels)
    wait(dock, labels, qtbot)
    assert dock.classes.classes() == tuple(default_class(value) for value in (1, 2, 3))
