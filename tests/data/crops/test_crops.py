import numpy as np
import pytest

from napari_affmae.config import IGNORE_INDEX, AugmentationConfig, NormalizationConfig
from napari_affmae.data.crops.labelled import LabelledCrops
from napari_affmae.data.crops.unlabelled import PretrainCrops, random_start
from napari_affmae.data.formats.opening import open_source
from napari_affmae.data.labels import LabelledPair, default_classes
from napari_affmae.data.normalization.normalization import normalize_sources
from napari_affmae.data.sources.source import ArraySource
from napari_affmae.errors import DataError, UnreadableFileError

EVERYTHING = AugmentationConfig(affine=1, elastic=1, intensity=1, noise=1)


def normalized(*arrays, **options):
    sources = [open_source(array, **options) for array in arrays]
    return normalize_sources(sources, NormalizationConfig(low=0, high=100))


def numbered(planes, height, width):
    """Every pixel has its own value."""
    size = planes * height * width
    return np.arange(size, dtype=np.float64).reshape(planes, height, width)


def undone(source, values):
    """Values before normalisation."""
    numbers = source.statistics
    scaled = values.astype(np.float64) * numbers.std[0] + numbers.mean[0]
    return np.rint(scaled * (numbers.high[0] - numbers.low[0]) + numbers.low[0])


def test_crops_are_parts_of_planes():
    array = numbered(3, 90, 100)
    (source,) = normalized(array)
    crops = PretrainCrops([source], 64, seed=5)
    corners = set()
    for index in range(40):
        values = undone(source, crops.sample(index)[0])
        plane, top, left = (int(i) for i in np.unravel_index(int(values[0, 0]), array.shape))
        np.testing.assert_array_equal(values, array[plane, top : top + 64, left : left + 64])
        corners.add((plane, top, left))
    assert len(corners) > 35


@pytest.mark.parametrize("augmentation", [None, AugmentationConfig(), EVERYTHING])
def test_samples_are_pure_functions_of_seed_and_index(augmentation):
    sources = normalized(*np.random.default_rng(0).random((2, 3, 80, 90)))
    one, two = (PretrainCrops(sources, 64, augmentation=augmentation, seed=3) for _ in range(2))
    other = PretrainCrops(sources, 64, augmentation=augmentation, seed=4)
    forwards = [one.sample(index) for index in range(8)]
    backwards = [two.sample(index) for index in reversed(range(8))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert forwards[0].shape == (1, 64, 64)
    assert forwards[0].dtype == np.float32
    assert np.isfinite(forwards).all()
    assert not np.array_equal(forwards[0], other.sample(0))
    assert not np.array_equal(forwards[0], forwards[1])


def test_planes_are_drawn_by_area():
    small, large = np.zeros((4, 64, 64)), np.zeros((1, 128, 256))
    small[:, ::2], large[..., ::2] = 1, 1  # rows and columns
    crops = PretrainCrops(normalized(small, large), 64, seed=0)
    drawn = [crops.sample(index)[0] for index in range(600)]
    of_small = np.mean([np.ptp(crop, axis=0).max() > 1 for crop in drawn])
    assert of_small == pytest.approx(1 / 3, abs=0.06)


def test_only_the_chosen_planes_are_drawn():
    array = numbered(4, 64, 64)
    sources = normalized(array, array + 1e6)
    crops = PretrainCrops(sources, 64, planes=[[1, 3], []], seed=0)
    drawn = {int(undone(sources[0], crops.sample(i)[0])[0, 0]) // 64**2 for i in range(30)}
    assert drawn == {1, 3}


@pytest.mark.parametrize("augmentation", [None, EVERYTHING])
@pytest.mark.parametrize("shape", [(1, 40, 50), (2, 20, 200), (1, 1, 70)])
def test_planes_smaller_than_the_crop_are_mirrored(shape, augmentation):
    sources = normalized(np.random.default_rng(0).random(shape))
    crop = PretrainCrops(sources, 64, augmentation=augmentation, seed=0).sample(0)
    assert crop.shape == (1, 64, 64)
    assert np.isfinite(crop).all()
    if augmentation is None:
        low, high = sources[0].read(0).min(), sources[0].read(0).max()
        assert low <= crop.min()
        assert crop.max() <= high


def test_bent_crops_may_lie_beyond_a_tiny_plane():
    noise = np.random.default_rng(0).integers(1, 255, (1, 400), dtype=np.uint8)
    bent = AugmentationConfig(affine=1, elastic=0)
    sources = normalized(noise)
    pairs = [LabelledPair(sources[0], open_source(noise))]
    classes = default_classes(range(1, 255))
    images = PretrainCrops(sources, 256, augmentation=bent, seed=1)
    labelled = LabelledCrops(pairs, 256, classes, 0, augmentation=bent, seed=1)
    for index in range(30, 35):
        assert np.isfinite(images.sample(index)).all()
        assert (labelled.sample(index)[1] != IGNORE_INDEX).any()


def test_mirrored_pixels_are_the_planes_own():
    array = numbered(1, 40, 64)
    (source,) = normalized(array)
    for index in range(5):
        rows = undone(source, PretrainCrops([source], 64, seed=2).sample(index)[0])[:, 0] // 64
        steps = np.abs(np.diff(rows))
        assert set(rows) == set(range(40))
        assert (steps == 1).all()


def test_channels_must_agree():
    one = normalized(np.random.default_rng(0).random((70, 70)))
    two = normalized(np.random.default_rng(0).random((2, 70, 70)), axes="CYX")
    with pytest.raises(DataError, match=r"differ in channels.*has 1.*has 2"):
        PretrainCrops([*one, *two], 64)
    assert PretrainCrops(two, 64).sample(0).shape == (2, 64, 64)


def test_nothing_to_draw_from():
    with pytest.raises(DataError, match="no image"):
        PretrainCrops([], 64)
    sources = normalized(np.random.default_rng(0).random((2, 70, 70)))
    with pytest.raises(DataError, match="no image"):
        PretrainCrops(sources, 64, planes=[[]])
    with pytest.raises(ValueError, match="planes are given for 2 of 1"):
        PretrainCrops(sources, 64, planes=[[0], [0]])
    with pytest.raises(ValueError, match="source with 2"):
        PretrainCrops(sources, 64, planes=[[2]])


@pytest.mark.parametrize(
    ("size", "hold"),
    [
        *(
            (size, hold)
            for size in (40, 64, 65, 200)
            for hold in (None, slice(0, 9), slice(30, 40))
        ),
        (200, slice(170, 180)),
        (200, slice(100, 132)),
    ],
)
def test_starts_cover_the_whole_range(size, hold):
    rng = np.random.default_rng(0)
    starts = {random_start(rng, size, 64, hold) for _ in range(2000)}
    allowed = range(min(0, size - 64), max(0, size - 64) + 1)
    if hold is not None:
        allowed = [s for s in allowed if s <= hold.start and s + 64 >= hold.stop]
    assert starts == set(allowed)


class Breaking(ArraySource):
    """Reads well until it is broken."""

    broken = False

    def _fetch(self, index):
        if self.broken:
            raise OSError("the disk is gone")
        return super()._fetch(index)


def test_a_source_that_breaks_is_left_out():
    arrays = [np.random.default_rng(seed).random((2, 70, 70)) for seed in range(3)]
    items = [Breaking(array, name=str(number)) for number, array in enumerate(arrays)]
    sources = normalize_sources(items, NormalizationConfig())
    crops, untouched = (PretrainCrops(sources, 64, seed=0) for _ in range(2))
    before = [crops.sample(index) for index in range(20)]
    items[1].broken = True
    after = [crops.sample(index) for index in range(20)]
    assert list(crops.left_out) == [1]
    assert "the disk is gone" in str(crops.left_out[1])
    assert all(np.isfinite(crop).all() for crop in after)
    items[1].broken = False
    for index in range(20):
        np.testing.assert_array_equal(untouched.sample(index), before[index])
    lost = {crop.tobytes() for crop in before} - {crops.sample(i).tobytes() for i in range(20)}
    assert lost
    items[0].broken = items[2].broken = True
    with pytest.raises(UnreadableFileError, match="cannot read plane"):
        [crops.sample(index) for index in range(20)]
