import numpy as np
import pytest

from napari_affmae.engine.results.pyramid import average, most_frequent


@pytest.mark.parametrize("shape", [(1, 6, 8), (3, 7, 9), (2, 1, 5)])
@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2), (1, 3, 2)])
def test_each_group_gets_its_most_frequent_value_or_mean(shape, factors):
    labels = np.random.default_rng(0).choice(np.array([0, 3, 7], np.uint8), shape)
    modes, means = most_frequent(labels, factors), average(labels, factors)
    assert modes.dtype == means.dtype == np.uint8
    for place in np.ndindex(modes.shape):
        box = tuple(slice(n * f, (n + 1) * f) for n, f in zip(place, factors, strict=True))
        values, counts = np.unique(labels[box], return_counts=True)
        assert modes[place] == values[counts == counts.max()].max()
        assert means[place] == np.rint(labels[box].mean(dtype=np.float32))


def test_means_keep_the_type():
    halves = np.array([[0.5, 0.25]], np.float16)
    np.testing.assert_array_equal(average(halves, (1, 2)), np.array([[0.375]], np.float16))
