import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from affmae_kernels.cut_crops.arithmetic import places
from napari_affmae.config import AugmentationConfig, NormalizationConfig
from napari_affmae.data.crops.augmentation import NONE, draw_light, draw_shapes, spline_basis
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.normalization.normalization import normalize_sources

CROPS = np.arange(2000)
GAMMA, CONTRAST, BRIGHTNESS, BLUR, NOISE = range(5)


def only(**settings):
    return AugmentationConfig(**(NONE.model_dump() | settings))


def shapes(crop=64, crops=CROPS, **settings):
    return draw_shapes(only(**settings), 3, crops, crop)


def light(**settings):
    return draw_light(only(**settings), 3, CROPS)


def is_changed(drawn):
    return ~(drawn == np.eye(2)).all(axis=(1, 2))


def test_nothing_is_changed_without_need():
    drawn = shapes()
    assert not is_changed(drawn.turns).any()
    assert not is_changed(drawn.matrices).any()
    assert not drawn.knots.any()
    np.testing.assert_array_equal(light(), np.tile([1.0, 1, 0, 0, 0], (len(CROPS), 1)))


def test_all_eight_turns_and_mirrors_occur_alike():
    drawn = shapes(flips=True)
    np.testing.assert_array_equal(drawn.turns, drawn.matrices)
    kinds, counts = np.unique(drawn.turns.reshape(-1, 4), axis=0, return_counts=True)
    assert len(kinds) == 8
    for kind in kinds.reshape(-1, 2, 2):
        assert set(kind.ravel()) <= {-1.0, 0.0, 1.0}
        np.testing.assert_array_equal(kind @ kind.T, np.eye(2))
    assert np.abs(counts - 250).max() < 70


@pytest.mark.parametrize("chance", [0, 0.25, 1])
def test_chances_are_per_crop(chance):
    near = pytest.approx(chance, abs=0.04 if 0 < chance < 1 else 0)
    drawn = shapes(affine=chance, elastic=chance)
    bent, curved = is_changed(drawn.matrices), drawn.knots.any(axis=(1, 2, 3))
    assert bent.mean() == near
    assert curved.mean() == near
    both = (bent & curved).mean()
    assert both == pytest.approx(chance**2, abs=0.03 if 0 < chance < 1 else 0)
    lit = light(intensity=chance)
    assert (lit[:, GAMMA] != 1).mean() == near
    assert (lit[:, CONTRAST] != 1).mean() == near
    assert (lit[:, BRIGHTNESS] != 0).mean() == near
    assert not lit[:, [BLUR, NOISE]].any()
    noisy = light(noise=chance)
    blurred, spoiled = noisy[:, BLUR] > 0, noisy[:, NOISE] > 0
    assert not (blurred & spoiled).any()
    assert (blurred | spoiled).mean() == near
    assert blurred.mean() == pytest.approx(chance / 2, abs=0.04)
    np.testing.assert_array_equal(noisy[:, :3], np.tile([1.0, 1, 0], (len(CROPS), 1)))


def test_light_stays_within_its_bounds_and_reaches_them():
    drawn = light(intensity=1, noise=1)
    for column, low, high in [
        (GAMMA, 0.7, 1.5),
        (CONTRAST, 0.75, 1.33),
        (BRIGHTNESS, -0.3, 0.3),
        (BLUR, 0.3, 1.2),
        (NOISE, 0, 0.25),
    ]:
        values = drawn[:, column]
        if column in {BLUR, NOISE}:
            values = values[values > 0]
        assert low <= values.min() < low + 0.02
        assert high - 0.02 < values.max() <= high
    brighter = (drawn[:, [GAMMA, CONTRAST]] > 1).mean(axis=0)
    expected = [np.log(high) / np.log(high / low) for low, high in ((0.7, 1.5), (0.75, 1.33))]
    np.testing.assert_allclose(brighter, expected, atol=0.04)


@pytest.mark.parametrize("flips", [False, True])
def test_affine_maps_turn_scale_and_shear_a_little(flips):
    drawn = shapes(affine=1, flips=flips)
    # Of M = rotation * scale * shear, undone to the last turn.
    matrices = drawn.matrices @ drawn.turns.swapaxes(1, 2)
    across, along = np.moveaxis(matrices, 2, 0)
    angle = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    assert np.abs(angle).max() <= 45 + np.degrees(np.arctan(0.1))
    assert angle.min() < -40
    assert angle.max() > 40
    area = np.linalg.det(matrices)
    assert area.min() >= 1.25**-2 * 0.99
    assert area.max() <= 1.25**2 * 1.01
    assert area.min() < 0.7
    assert area.max() > 1.45
    lengths = np.linalg.norm(across, axis=1), np.linalg.norm(along, axis=1)
    assert np.abs(np.log(lengths[0] / lengths[1])).max() <= np.log(1.01)
    skew = np.einsum("bi,bi->b", across, along) / (lengths[0] * lengths[1])
    assert 0.15 < np.abs(skew).max() < 0.21


def field(drawn, crop, number=0):
    """Displacement of every pixel of a crop, (2, crop, crop)."""
    basis = spline_basis(crop)
    return np.einsum("ir,nrc,jc->nij", basis, drawn.knots[number], basis)


def test_elastic_displacement_is_smooth_and_no_larger_than_it_should_be():
    drawn = shapes(128, CROPS[:100], elastic=1)
    fields = np.stack([field(drawn, 128, number) for number in range(100)])
    # Splines average the knots, whose deviation is 5 px.
    assert 1.5 < fields.std() < 5
    assert fields.mean() == pytest.approx(0, abs=0.2)
    assert np.abs(np.diff(fields, axis=2)).max() < 0.8
    assert np.abs(fields).max() < 20


def test_extreme_random_numbers_displace_no_pixel_infinitely_far(monkeypatch):
    def extreme(seed, crops, count, use):
        return np.tile([0.0, 1 - 2.0**-53], (len(crops), (count + 1) // 2))[:, :count]

    monkeypatch.setattr("napari_affmae.data.crops.augmentation.uniform", extreme)
    assert np.isfinite(shapes(64, CROPS[:2], elastic=1).knots).all()


@pytest.mark.parametrize("crop", [1, 7, 32, 33, 64, 500])
def test_places_are_where_crops_are_cut(crop):
    drawn = shapes(crop, CROPS[:40], flips=True, affine=0.7, elastic=0.7)
    parts = (drawn.matrices, np.zeros((40, 2)), drawn.knots)
    row, column = places(*(torch.from_numpy(part).float() for part in parts), crop)
    pixels = np.random.default_rng(0).integers(0, crop, (40, 2))
    found = drawn.places(pixels.astype(float), crop)
    for number, (i, j) in enumerate(pixels):
        expected = row[number, i, j], column[number, i, j]
        np.testing.assert_allclose(found[number], expected, atol=1e-4)


def test_what_is_drawn_follows_from_seed_and_number():
    config = AugmentationConfig(affine=0.5, elastic=0.5, noise=0.5)
    whole, whole_light = draw_shapes(config, 3, CROPS, 64), draw_light(config, 3, CROPS)
    for crop in (0, 17, 1999):
        one = draw_shapes(config, 3, CROPS[crop : crop + 1], 64)
        for name in ("turns", "matrices", "knots"):
            np.testing.assert_array_equal(getattr(one, name)[0], getattr(whole, name)[crop])
        alone = draw_light(config, 3, CROPS[crop : crop + 1])
        np.testing.assert_array_equal(alone[0], whole_light[crop])
    other = draw_shapes(config, 4, CROPS, 64)
    assert (other.matrices != whole.matrices).any(axis=(1, 2)).mean() > 0.8
    assert (draw_light(config, 4, CROPS) != whole_light).any(axis=1).mean() > 0.8


def source(array):
    return normalize_sources([open_source(array)], NormalizationConfig(low=0, high=100))


@pytest.mark.parametrize("settings", [{"intensity": 1}, {"noise": 1}])
def test_light_changes_crops_but_not_beyond_recognition(drawing, settings):
    image = gaussian_filter(np.random.default_rng(0).random((64, 64)), 1.5)
    sources = source(image)
    (plain,) = drawing.cut(drawing.unlabelled(sources), 1)
    (changed,) = drawing.cut(drawing.unlabelled(sources, augmentation=only(**settings)), 30)
    assert len({crop.tobytes() for crop in changed}) == 30
    for crop in changed:
        assert np.corrcoef(crop.ravel(), plain.ravel())[0, 1] > 0.6
        assert 0.3 < crop.std() < 2


def test_intensity_keeps_the_order_of_pixels(drawing):
    ramp = np.linspace(-2, 2, 64 * 64, dtype=np.float32).reshape(64, 64)
    crops = drawing.unlabelled(source(ramp), augmentation=only(intensity=1))
    (images,) = drawing.cut(crops, 20)
    assert (np.diff(images.reshape(20, -1)) >= -1e-6).all()


def test_constant_images_survive_gamma(drawing):
    config = only(intensity=1, noise=1)
    crops = drawing.unlabelled(source(np.ones((64, 64), np.float32)), augmentation=config)
    (images,) = drawing.cut(crops, 20)
    assert np.isfinite(images).all()
