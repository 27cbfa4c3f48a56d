import io

import numpy as np
import pytest
from PIL import Image

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.label_values import class_values, number_objects
from napari_affmae.errors import DataError


@pytest.fixture(scope="module")
def cells():
    """Voronoi cells, 160 x 160, numbered from 1."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 160, (40, 2))
    rows, columns = np.mgrid[:160, :160]
    distance = np.hypot(rows[..., None] - points[:, 0], columns[..., None] - points[:, 1])
    return distance.argmin(-1) + 1


@pytest.fixture(scope="module")
def membranes(cells):
    mask = np.zeros(cells.shape, np.uint8)
    for step in ((0, 1), (1, 0), (1, 1)):
        mask |= cells != np.roll(cells, step, (0, 1))
    return mask


def as_jpeg(mask, quality):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def values_of(labels, ignore=None):
    return class_values(open_source(labels, name="truth"), ignore)


def refused(labels):
    with pytest.raises(DataError) as caught:
        values_of(labels)
    assert str(caught.value).startswith("truth: ")
    return str(caught.value)


def test_classes_are_taken_as_they_are(cells, membranes):
    assert values_of(membranes) == {0, 1}
    assert values_of(membranes * np.uint8(255), ignore=0) == {255}
    assert values_of(cells % 5) == {0, 1, 2, 3, 4}


def test_points_of_several_classes_are_no_noise():
    labels = np.zeros((100, 100), np.uint8)
    labels[:30, :30] = 1
    rng = np.random.default_rng(0)
    labels[rng.integers(0, 100, 42), rng.integers(0, 100, 42)] = 2 + np.arange(42) % 6
    assert values_of(labels) == set(range(8))


@pytest.mark.parametrize(
    ("factor", "quality"), [*((255, q) for q in (30, 75, 90, 95, 100)), (100, 75), (100, 95)]
)
def test_masks_that_were_saved_as_jpeg_are_refused(membranes, factor, quality):
    assert "as after saving as JPEG" in refused(as_jpeg(membranes * np.uint8(factor), quality))


def test_masks_that_were_resized_smoothly_are_refused(membranes):
    image = Image.fromarray(membranes * np.uint8(255)).resize((120, 120), Image.Resampling.BILINEAR)
    assert "without interpolation" in refused(np.asarray(image))


def test_numbers_of_objects_are_refused(cells, membranes):
    many = np.where(membranes, 0, 1000 + 40 * (np.arange(160) // 20) + cells)
    assert "numbered objects" in refused(many.astype(np.uint16))
    assert "numbered objects" in refused(np.stack([cells, cells + 40]).astype(np.uint32))


def test_grey_images_as_labels_are_refused():
    grey = np.random.default_rng(0).normal(128, 30, (64, 64)).clip(0, 255).astype(np.uint8)
    assert "swapped" in refused(grey)


def test_few_objects_with_a_number_each(cells, membranes):
    assert number_objects(cells)
    assert number_objects(np.where(membranes, 0, cells), ignore_value=0)
    assert not number_objects(cells % 12)
    assert not number_objects(membranes.astype(np.int64))
