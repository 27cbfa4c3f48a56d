from pathlib import Path

import numpy as np

from napari_affmae.config import FinetuneConfig, LabelClass
from napari_affmae.data import open_source
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.training.labelled_data import settle_classes

CLASSES = (
    LabelClass(value=1, name="cytoplasm", color="#336699"),
    LabelClass(value=2, name="membrane", color="#ff8000"),
)


def test_a_training_takes_over_the_classes_that_its_labels_name(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(1, 3, (80, 80)).astype(np.uint8)
    with PlaneFile(tmp_path / "labels.tif", 1, classes=CLASSES) as file:
        file.write(labels)
    with open_source(tmp_path / "labels.tif") as source:
        pairs = [(open_source(labels), source)]
        assert settle_classes(pairs, FinetuneConfig(steps=1), None) == CLASSES
        other = CLASSES[0].model_copy(update={"name": "other"})
        given = FinetuneConfig(steps=1, classes=(other, CLASSES[1]))
        assert settle_classes(pairs, given, None) == given.classes
