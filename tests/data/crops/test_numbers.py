import numpy as np
import pytest

from napari_affmae.data.crops.numbers import uniform, words

CROPS = np.arange(100_000)


def test_numbers_are_evenly_spread():
    numbers = uniform(5, CROPS, 4)
    assert numbers.shape == (100_000, 4)
    assert numbers.dtype == np.float64
    assert numbers.min() >= 0
    assert numbers.max() < 1
    # Their deviation over 100,000 crops would be a tenth of the tolerances or so.
    np.testing.assert_allclose(numbers.mean(axis=0), 1 / 2, atol=5e-3)
    np.testing.assert_allclose(numbers.var(axis=0), 1 / 12, atol=2e-3)
    for column in numbers.T:
        counts, _ = np.histogram(column, 100, (0, 1))
        assert np.abs(counts - 1000).max() < 160


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (uniform(5, CROPS, 2)[:, 0], uniform(5, CROPS, 2)[:, 1]),
        (uniform(5, CROPS, 1, 1)[:, 0], uniform(5, CROPS, 1, 2)[:, 0]),
        (uniform(5, CROPS, 1)[:, 0], uniform(6, CROPS, 1)[:, 0]),
        (uniform(5, CROPS, 1)[:, 0], uniform(5, CROPS + 1, 1)[:, 0]),
        (uniform(5, CROPS, 2)[:, 1], uniform(5, CROPS + 1, 2)[:, 0]),
        (uniform(5, CROPS + 1, 1)[:, 0], uniform(6, CROPS, 1)[:, 0]),
    ],
    ids=["places", "uses", "seeds", "crops", "places and crops", "crops and seeds"],
)
def test_numbers_are_independent(one, other):
    assert not (one == other).any()
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    table, _, _ = np.histogram2d(one, other, 10)
    assert np.abs(table - 1000).max() < 160


def test_a_crop_has_its_numbers_in_every_batch():
    whole = words(5, CROPS[:50], 8, 3)
    assert whole.dtype == np.uint64
    for crop in (0, 7, 49):
        np.testing.assert_array_equal(words(5, CROPS[crop : crop + 1], 8, 3)[0], whole[crop])
    np.testing.assert_array_equal(words(5, CROPS[:50], 2, 3), whole[:, :2])


@pytest.mark.parametrize("seed", [0, 2**31 - 1, 2**64 - 1])
def test_any_seed_and_crop_have_numbers_of_their_own(seed):
    crops = np.array([0, 1, 2**31, 2**40, 2**62])
    numbers = words(seed, crops, 20)
    assert len(np.unique(numbers)) == numbers.size
