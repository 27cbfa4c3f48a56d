"""Results opened in napari by the reader that its users have for OME-Zarr."""

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_affmae.config import LabelClass
from napari_affmae.data import SourceStatistics, open_source
from napari_affmae.engine.results.origin import Origin
from napari_affmae.engine.results.plan import BlockSizes, Plan
from napari_affmae.engine.results.volume import Place, Volume

CLASSES = (
    LabelClass(value=0, name="inside", color="#000000"),
    LabelClass(value=2, name="membrane", color="#ff8000"),
)


def made(folder: Path) -> Place:
    """A volume with a pyramid of three levels."""
    source = open_source(np.zeros((3, 60, 60), np.uint8), axes="ZYX", name="empty")
    source.pixel_size, source.plane_distance = (4.0, 5.0), 30.0
    origin = Origin(image="i", model="m", tile=64, overlap=0.25, precision="fp32")
    statistics = SourceStatistics(low=(0,), high=(1,), fill=(0,), mean=(0,), std=(1,))
    sizes = BlockSizes(chunk=8, side=16)
    plan = Plan.of(source, origin, statistics, CLASSES, probabilities="uint8", sizes=sizes)
    place = Place(folder / "a.zarr", folder / "a_probabilities.zarr")
    volume = Volume.create(place, plan, "a")
    for number in range(plan.first(plan.levels)):
        level, box = volume.box(number)
        if level:
            volume.write_chain([number])
            continue
        shape = tuple(part.stop - part.start for part in box)
        values = np.full((2, *shape), 200, np.uint8)
        volume.write(level, box, np.full(shape, 2, np.uint8), values)
    return place


# The reader names no colour for values that are no class; there are none.
@pytest.mark.filterwarnings("ignore:color_dict did not provide a default color")
def test_labels_have_colours_names_scale_and_levels(viewer, tmp_path):
    (labels,) = viewer.open(made(tmp_path).labels, plugin="napari-ome-zarr")
    assert isinstance(labels, Labels)
    assert [level.shape for level in labels.data] == [(3, 60, 60), (3, 30, 30), (3, 15, 15)]
    assert (np.asarray(labels.data[0]) == 2).all()
    np.testing.assert_allclose(labels.get_color(2), [1, 128 / 255, 0, 1], atol=1e-6)
    np.testing.assert_allclose(labels.scale, [30, 4, 5])
    assert "membrane" in list(labels.features["name"])


def test_probabilities_are_a_layer_a_class(viewer, tmp_path):
    layers = viewer.open(made(tmp_path).probabilities, plugin="napari-ome-zarr")
    assert all(isinstance(layer, Image) for layer in layers)
    assert [layer.name for layer in layers] == ["a: inside", "a: membrane"]
    assert layers[0].contrast_limits == [0, 255]
