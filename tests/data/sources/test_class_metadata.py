from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.config import LabelClass
from napari_affmae.data import open_source, proposed_classes, window
from napari_affmae.data.sources.class_metadata import (
    class_annotation,
    classes_in_image_label,
    classes_in_ome,
    color_table,
    rgb,
)

CLASSES = (
    LabelClass(value=0, name="cytoplasm", color="#101112"),
    LabelClass(value=3, name="Müller & co <3 #1", color="#ff8000"),
    LabelClass(value=200, name="two\nlines \x0b", color="#0000FF"),
)


def ome_of(annotation: object) -> str:
    ome = tifffile.OmeXml()
    ome.addimage("uint8", (4, 5), (1, 1, 1, 4, 5, 1), axes="YX", MapAnnotation=annotation)
    return str(ome.tostring())


def test_classes_come_back_from_ome_metadata() -> None:
    read = classes_in_ome(ome_of(class_annotation(CLASSES)))
    assert read[:2] == CLASSES[:2]
    # XML has no vertical tab.
    assert read[2] == CLASSES[2].model_copy(update={"name": "two\nlines \ufffd"})


@pytest.mark.parametrize(
    "texts",
    [
        {"1": "membrane", "2": "mitochondria #00ff00"},
        {"one": "membrane #ff0000"},
        {"-1": "membrane #ff0000"},
        {"1": "membrane #ff0000", "2": "membrane #00ff00"},
    ],
)
def test_classes_that_are_damaged_are_none(texts: dict[str, str]) -> None:
    annotation = class_annotation(CLASSES) | {"Value": texts}
    assert classes_in_ome(ome_of(annotation)) == ()


def test_other_metadata_hold_no_classes() -> None:
    assert classes_in_ome(None) == ()
    assert classes_in_ome(ome_of({"Namespace": "other", "Value": {"1": "x #ff0000"}})) == ()
    assert classes_in_ome("napari-affmae/classes <not XML") == ()


def test_the_table_of_colours_has_16_bits() -> None:
    table = color_table(CLASSES)
    assert table is not None
    assert table[:, 3].tolist() == [65535, 128 * 257, 0]
    assert not table[:, 4].any()
    large = CLASSES[0].model_copy(update={"value": 256})
    assert color_table([*CLASSES, large]) is None


def test_classes_come_back_from_ome_zarr(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "labels.zarr", mode="w")
    group.create_array("0", data=np.zeros((4, 5), np.uint8))
    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets}],
        "image-label": {
            "colors": [
                {"label-value": item.value, "rgba": [*rgb(item.color), 255]} for item in CLASSES
            ],
            "properties": [{"label-value": item.value, "name": item.name} for item in CLASSES],
        },
    }
    with open_source(tmp_path / "labels.zarr") as source:
        expected = [item.model_copy(update={"color": item.color.lower()}) for item in CLASSES]
        assert source.classes == tuple(expected)
        assert window(source, rows=slice(0, 2)).classes == source.classes


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        {"colors": [{"label-value": 1, "rgba": [1, 2, 3, 4]}]},
        {"colors": 3, "properties": [{"label-value": 1, "name": "a"}]},
        {
            "colors": [{"label-value": 1, "rgba": [1000, 2, 3, 4]}],
            "properties": [{"label-value": 1, "name": "a"}],
        },
        {
            "colors": [{"label-value": 1, "rgba": "red"}],
            "properties": [{"label-value": 1, "name": "a"}],
        },
        {
            "colors": [{"label-value": 1, "rgba": [1, 2, 3, 4]}],
            "properties": [{"label-value": 1, "name": ["a"]}],
        },
    ],
)
def test_image_labels_of_other_kinds_hold_no_classes(metadata: object) -> None:
    assert classes_in_image_label(metadata) == ()


def test_classes_are_proposed_as_files_name_them() -> None:
    named = open_source(np.zeros((4, 5), np.uint8))
    named.classes = CLASSES[:2]
    unnamed = open_source(np.zeros((4, 5), np.uint8))
    proposed = proposed_classes({0, 3, 7}, [unnamed, named])
    assert proposed[:2] == CLASSES[:2]
    assert (proposed[2].value, proposed[2].name) == (7, "class 7")


def test_names_that_are_not_distinct_are_not_proposed() -> None:
    sources = [open_source(np.zeros((4, 5), np.uint8)) for _ in range(2)]
    for value, source in enumerate(sources):
        source.classes = (LabelClass(value=value, name="membrane", color="#ff0000"),)
    assert [item.name for item in proposed_classes({0, 1}, sources)] == ["background", "class 1"]
