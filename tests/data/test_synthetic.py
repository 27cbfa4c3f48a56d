import numpy as np
import pytest

from napari_affmae.data.appearance import membranes
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.synthetic import SYNTHETIC_CLASSES, synthetic_em


@pytest.fixture(scope="module")
def made():
    return synthetic_em((24, 160, 192), seed=3)


def test_volume_and_labels(made):
    volume, labels = made
    assert volume.shape == labels.shape == (24, 160, 192)
    assert volume.dtype == labels.dtype == np.uint8
    shares = np.bincount(labels.ravel(), minlength=len(SYNTHETIC_CLASSES)) / labels.size
    assert shares[0] > 0.5
    assert 0.05 < shares[1] < 0.3
    assert 0.01 < shares[2] < 0.3
    assert 0.0005 < shares[3] < 0.05


def test_membranes_and_mitochondria_are_dark(made):
    volume, labels = made
    means = [volume[labels == index].mean() for index in range(4)]
    assert means[1] < means[0] - 30
    assert means[2] < means[0] - 30
    assert membranes(open_source(volume)) == "dark"


def test_neighbouring_planes_are_alike(made):
    _, labels = made
    assert (labels[1:] == labels[:-1]).mean() > 0.9


def test_grey_values_are_not_clipped(made):
    volume, _ = made
    assert np.mean((volume == 0) | (volume == 255)) < 0.001


def test_seed_decides(made):
    again = synthetic_em((24, 160, 192), seed=3)
    np.testing.assert_array_equal(again, made)
    other, _ = synthetic_em((24, 160, 192), seed=4)
    assert not np.array_equal(other, made[0])


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 65, 97)])
def test_small_and_odd_shapes(shape):
    volume, labels = synthetic_em(shape, seed=0)
    assert volume.shape == labels.shape == shape
    assert set(np.unique(labels)) >= {0, 1}


@pytest.mark.parametrize("shape", [(64, 64), (0, 64, 64)])
def test_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match="planes, rows, columns"):
        synthetic_em(shape)
