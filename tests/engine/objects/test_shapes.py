"""Shapes and grey values of objects."""

import numpy as np
import pytest
from skimage.draw import disk, ellipse

from napari_affmae.engine.objects.shapes import measure_shapes


@pytest.fixture
def plane():
    objects = np.zeros((200, 300), np.int32)
    objects[disk((60, 60), 40)] = 2
    objects[ellipse(120, 200, 20, 80)] = 5
    objects[190:191, 10:12] = 7
    return objects


def test_shapes_of_a_plane(plane):
    table = measure_shapes(plane, (0.004, 0.004), "um")
    assert table["label"].tolist() == [2, 5, 7]
    np.testing.assert_allclose(table["diameter_um"][0], 0.32, rtol=0.01)
    np.testing.assert_allclose(table["length_um"][:2], [0.32, 0.64], rtol=0.02)
    np.testing.assert_allclose(table["width_um"][:2], [0.32, 0.16], rtol=0.02)
    assert table["roundness"][0] > 0.9 > table["roundness"][1]
    assert (table["solidity"][:2] > 0.95).all()
    assert all(np.isfinite(column).all() for column in table.values())


def test_grey_values_are_those_of_the_object(plane):
    image = np.random.default_rng(0).integers(0, 255, plane.shape, np.uint8)
    table = measure_shapes(plane, image=image)
    for row, number in enumerate(table["label"]):
        values = image[plane == number].astype(float)
        np.testing.assert_allclose(table["mean_grey"][row], values.mean())
        np.testing.assert_allclose(table["sd_grey"][row], values.std())


def test_a_volume_with_thick_planes():
    objects = np.zeros((8, 40, 40), np.int32)
    objects[2:6, 10:30, 10:30] = 1
    table = measure_shapes(objects, (5.0, 1.0, 1.0), "nm")
    np.testing.assert_allclose(table["diameter_nm"], (6 / np.pi * 20**3) ** (1 / 3))
    assert "roundness" not in table


def test_nothing_is_measured_of_nothing(plane):
    table = measure_shapes(plane * 0, image=plane)
    assert {len(column) for column in table.values()} == {0}


def test_what_does_not_fit_is_refused(plane):
    with pytest.raises(ValueError, match="the spacing 3 numbers"):
        measure_shapes(plane, (1, 1, 1))
    with pytest.raises(ValueError, match="the image has shape"):
        measure_shapes(plane, image=plane[1:])
    with pytest.raises(ValueError, match="objects must be"):
        measure_shapes(plane[0])
