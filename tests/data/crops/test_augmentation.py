import numpy as np
import pytest

from napari_affmae.config import AugmentationConfig
from napari_affmae.data.crops.augmentation import STRAIGHT, Augmentation, Geometry

NOTHING = {"flips": False, "affine": 0, "elastic": 0, "intensity": 0, "noise": 0}


def augmentation(**settings):
    return Augmentation(AugmentationConfig(**(NOTHING | settings)))


def drawn(rng_seed, crop=64, **settings):
    return augmentation(**settings).draw_geometry(np.random.default_rng(rng_seed), crop)


def test_nothing_is_changed_without_need():
    image = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
    geometry = drawn(0)
    assert geometry == STRAIGHT
    np.testing.assert_array_equal(geometry.bend(image, 64, nearest=False), image)
    assert augmentation().relight(image, np.random.default_rng(0)) is image


def test_all_eight_turns_and_flips_occur():
    image = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    seen = {
        drawn(seed, 2, flips=True).bend(image, 2, nearest=False).tobytes() for seed in range(99)
    }
    assert len(seen) == 8


def test_identity_coordinates_change_nothing():
    image = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
    grid = np.stack(np.meshgrid(np.arange(64.0), np.arange(64.0), indexing="ij"))
    geometry = Geometry(grid, 0, False)
    assert geometry.window(64) == (slice(0, 64), slice(0, 64))
    np.testing.assert_allclose(geometry.bend(image, 64, nearest=False), image)


@pytest.mark.parametrize("settings", [{"affine": 1}, {"elastic": 1}, {"affine": 1, "elastic": 1}])
def test_images_and_labels_bend_alike(settings):
    for seed in range(5):
        geometry = drawn(seed, flips=True, **settings)
        rows, columns = geometry.window(64)
        row, column = np.mgrid[rows, columns]
        checks = 4 * ((row // 16 + column // 16) % 2)[None]
        image = geometry.bend(checks.astype(np.float32), 64, nearest=False)
        label = geometry.bend(checks, 64, nearest=True)
        assert label.dtype == checks.dtype
        assert set(np.unique(label)) == {0, 4}
        assert image.shape == label.shape == (1, 64, 64)
        assert (np.abs(image - label) < 2).mean() > 0.97


def test_bending_keeps_the_middle_near_and_the_scale_sane():
    for seed in range(30):
        coordinates = drawn(seed, affine=1, elastic=1).coordinates
        assert np.abs(coordinates[:, 32, 32] - 32).max() < 25
        area = np.linalg.det(
            np.stack(np.gradient(coordinates, axis=(1, 2)), -1).transpose(1, 2, 0, 3)
        )
        assert 0.4 < np.median(area) < 2.2


def test_elastic_deformation_is_smooth():
    coordinates = drawn(1, 128, elastic=1).coordinates
    shift = coordinates - np.mgrid[:128, :128]
    assert shift.std() > 1
    assert np.abs(np.diff(shift, axis=1)).max() < 0.8


def test_window_holds_all_that_is_sampled():
    geometry = drawn(3, affine=1)
    rows, columns = geometry.window(64)
    assert rows.start <= geometry.coordinates[0].min()
    assert rows.stop - 1 >= geometry.coordinates[0].max()
    assert columns.start <= geometry.coordinates[1].min()
    assert columns.stop - 1 >= geometry.coordinates[1].max()


@pytest.mark.parametrize("settings", [{"intensity": 1}, {"noise": 1}])
def test_light_changes_by_the_generator_alone(settings):
    image = np.random.default_rng(0).standard_normal((2, 64, 64)).astype(np.float32)
    before = image.copy()
    changes = augmentation(**settings)
    outcomes = [changes.relight(image, np.random.default_rng(seed)) for seed in range(6)]
    np.testing.assert_array_equal(image, before)
    for outcome in outcomes:
        assert outcome.dtype == np.float32
        assert outcome.shape == image.shape
        assert np.corrcoef(outcome.ravel(), image.ravel())[0, 1] > 0.6
        assert 0.3 < outcome.std() < 2
    assert len({outcome.tobytes() for outcome in outcomes}) == 6
    again = changes.relight(image, np.random.default_rng(3))
    np.testing.assert_array_equal(again, outcomes[3])


def test_intensity_keeps_the_order_of_pixels():
    image = np.linspace(-2, 2, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    for seed in range(10):
        changed = augmentation(intensity=1).relight(image, np.random.default_rng(seed))
        assert (np.diff(changed.ravel()) >= 0).all()


def test_constant_images_survive_gamma():
    image = np.ones((1, 64, 64), np.float32)
    changed = augmentation(intensity=1, noise=1).relight(image, np.random.default_rng(0))
    assert np.isfinite(changed).all()
