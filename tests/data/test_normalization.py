from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from scipy.ndimage import binary_dilation, gaussian_filter, rotate
from skimage.exposure import equalize_adapthist

from napari_affmae.config import NormalizationConfig
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.normalization.empty_places import in_empty_tiles
from napari_affmae.data.normalization.normalization import normalize_sources, normalize_when_read
from napari_affmae.data.normalization.record import NormalizationRecord
from napari_affmae.errors import DataError, UnreadableFileError


def smooth(shape, seed=0):
    """An image in 0..1 with structure of some pixels' size."""
    noise = gaussian_filter(np.random.default_rng(seed).random(shape), 3)
    return (noise - noise.min()) / np.ptp(noise)


def normalized(array, **settings):
    return normalize_sources([open_source(array)], NormalizationConfig(**settings))[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("clahe", [False, True])
def test_zero_mean_and_unit_variance_in_every_dtype(dtype, clahe):
    scale = 250 if dtype == np.uint8 else 30000
    offset = -15000 if np.dtype(dtype).kind != "u" else 0
    array = (smooth((3, 90, 110)) * scale + offset).astype(dtype)
    source = normalized(array, clahe=clahe)
    values = np.stack([source.read(plane) for plane in range(3)])
    assert values.dtype == np.float32
    assert values.shape == (3, 1, 90, 110)
    assert values.mean() == pytest.approx(0, abs=1e-3)
    assert values.std() == pytest.approx(1, abs=1e-3)


def test_small_differences_on_a_large_offset_survive():
    array = smooth((60, 60)) + 1e9
    values = normalized(array).read(0)
    expected = normalized(smooth((60, 60))).read(0)
    np.testing.assert_allclose(values, expected, atol=1e-3)


def test_outliers_are_clipped():
    array = smooth((200, 200))
    hot = array.copy()
    hot[50, 60] = 1e6
    values, expected = normalized(hot).read(0)[0], normalized(array).read(0)[0]
    assert values[50, 60] == values.max() < 4
    values[50, 60] = expected[50, 60]
    np.testing.assert_allclose(values, expected, atol=0.05)


def tissue(shape, seed=0):
    """Grey from 60 to 190, which leaves black and white to borders and bars."""
    return (60 + 130 * smooth(shape, seed)).astype(np.uint8)


def turned(shape, degrees):
    """Pixels inside of a rectangle that was turned on a plane, as sections are by alignment."""
    inside = rotate(np.ones((shape[0] // 2, shape[1] // 2)), degrees, order=0)
    mask = np.zeros(shape, bool)
    top, left = (shape[0] - inside.shape[0]) // 2, (shape[1] - inside.shape[1]) // 2
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside > 0.5
    return mask


@pytest.mark.parametrize("border", [0, 255, 128])
@pytest.mark.parametrize("shape", [(400, 500), (1500, 1700)])
def test_borders_of_one_value_do_not_take_the_contrast(border, shape):
    inside = turned(shape, 17)
    array = np.where(inside, tissue(shape), border).astype(np.uint8)
    found, wanted = normalized(array).statistics, normalized(tissue(shape)).statistics
    assert inside.mean() < 0.3
    np.testing.assert_allclose(found.low + found.high, wanted.low + wanted.high, atol=8)
    np.testing.assert_allclose(found.mean + found.std, wanted.mean + wanted.std, atol=0.06)


@pytest.mark.parametrize("width", [1, 2, 9])
@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(80, 96), (300, 333), (1024, 1200)])
def test_narrow_borders_do_not_take_the_contrast(width, value, shape):
    array = np.full(shape, value, np.uint8)
    inside = slice(width, -width)
    array[inside, inside] = tissue(shape)[inside, inside]
    found, wanted = normalized(array).statistics, normalized(tissue(shape)).statistics
    np.testing.assert_allclose(found.low + found.high, wanted.low + wanted.high, atol=8)


def test_values_at_the_ends_that_fill_nothing_count():
    array = tissue((200, 200))
    array[::2, ::2], array[1::2, 1::2] = 0, 255
    statistics = normalized(array).statistics
    assert (statistics.low, statistics.high) == ((0.0,), (255.0,))


def test_borders_of_nan_and_what_was_mixed_with_them_do_not_take_the_contrast():
    shape = (400, 500)
    inside = turned(shape, 17)
    array = np.where(inside, tissue(shape), np.nan)
    edge = binary_dilation(inside, iterations=2) & ~inside
    array[edge] = 2000
    found, wanted = normalized(array).statistics, normalized(tissue(shape)).statistics
    np.testing.assert_allclose(found.low + found.high, wanted.low + wanted.high, atol=8)
    np.testing.assert_allclose(found.mean + found.std, wanted.mean + wanted.std, atol=0.06)
    values = normalized(array).read(0)[0]
    assert np.abs(values[~inside & ~edge]).max() < 0.2  # the mean


def test_an_information_bar_does_not_take_the_contrast():
    array = tissue((900, 1000))
    array[780:] = 0
    text = np.random.default_rng(0).random((40, 600)) < 0.3
    array[820:860, 100:700][text] = 255
    found, wanted = normalized(array).statistics, normalized(tissue((900, 1000))).statistics
    np.testing.assert_allclose(found.low + found.high, wanted.low + wanted.high, atol=8)


@pytest.mark.parametrize("clahe", [False, True])
def test_images_of_few_values_keep_all_of_them(clahe):
    array = np.zeros((200, 200), np.uint8)
    array[50:120, 30:160] = 1
    statistics = normalized(array, clahe=clahe).statistics
    assert (statistics.low, statistics.high) == ((0.0,), (1.0,))


def test_a_hot_pixel_does_not_move_what_replaces_nan():
    array = np.full((60, 70), np.nan)
    array[20:, 30:] = tissue((60, 70))[20:, 30:]
    array[5, 5] = 1e9
    assert 60 < normalized(array).statistics.fill[0] < 190


@pytest.mark.parametrize("shape", [(1, 96), (40, 3), (15, 15), (16, 31), (33, 47)])
@pytest.mark.parametrize("beside", [False, True])
def test_tiles_cover_every_pixel(shape, beside):
    assert in_empty_tiles(np.zeros(shape), beside=beside).all()
    noise = np.random.default_rng(0).random(shape)
    empty = in_empty_tiles(noise, beside=beside)
    assert empty.shape == shape
    assert not empty.any()


def test_empty_tiles_and_those_beside_them():
    array = np.random.default_rng(0).random((96, 96))
    array[32:48, 32:48] = 0.5
    array[80:, 80:] = np.nan
    empty, beside = in_empty_tiles(array), in_empty_tiles(array, beside=True)
    assert np.argwhere(empty).min(axis=0).tolist() == [32, 32]
    assert empty.sum() == 2 * 16 * 16
    assert beside.sum() == (9 + 4) * 16 * 16


def test_percentiles_bound_the_values():
    array = np.arange(10000, dtype=np.float32).reshape(100, 100)
    statistics = normalized(array, low=10, high=80).statistics
    assert statistics.low == pytest.approx((999.9,))
    assert statistics.high == pytest.approx((7999.2,))


def test_invert_turns_the_sign():
    array = smooth((80, 80))
    np.testing.assert_allclose(
        normalized(array, invert=True).read(0), -normalized(array).read(0), atol=1e-5
    )


def test_channels_are_normalised_by_themselves():
    array = np.stack([smooth((60, 70)), 1000 * smooth((60, 70), 1)])
    source = normalize_sources([open_source(array, axes="CYX")], NormalizationConfig())[0]
    np.testing.assert_allclose(source.read(0).std(axis=(1, 2)), 1, atol=1e-3)


def test_not_finite_values_are_ignored_and_read_as_the_mean():
    array = smooth((80, 90))
    holed = array.copy()
    holed[3:5, 7], holed[9, 9], holed[10, 10] = np.nan, np.inf, -np.inf
    values = normalized(holed).read(0)
    expected = normalized(array).read(0)
    mask = np.isfinite(holed)
    np.testing.assert_allclose(values[0][mask], expected[0][mask], atol=0.02)
    assert np.abs(values[0][~mask]).max() < 0.1


def test_a_source_without_any_finite_value_is_refused():
    with pytest.raises(DataError, match="no sampled pixel"):
        normalized(np.full((20, 20), np.nan))


@pytest.mark.parametrize("clahe", [False, True])
def test_constant_images_become_finite(clahe):
    assert np.isfinite(normalized(np.full((70, 70), 7, np.uint8), clahe=clahe).read(0)).all()


def test_rare_values_are_seen_where_percentiles_are_equal():
    array = np.zeros((100, 100), np.uint8)
    array[4, 4:6], array[5, 4:6] = 100, 200
    values = normalized(array).read(0)[0]
    assert values[5, 4] - values[4, 4] == pytest.approx(values[4, 4] - values[0, 0])


@pytest.mark.parametrize("clahe", [False, True])
@pytest.mark.parametrize("shape", [(300, 333), (50, 70), (130, 64), (70, 200), (129, 127)])
def test_a_pixel_is_the_same_in_every_crop(shape, clahe):
    slope = np.linspace(0, 1, shape[1])
    source = normalized((smooth(shape) * 3000 + 500 * slope).astype(np.uint16), clahe=clahe)
    whole = source.read(0)
    rng = np.random.default_rng(0)
    for _ in range(25):
        top, bottom = np.sort(rng.choice(shape[0] + 1, 2, replace=False))
        left, right = np.sort(rng.choice(shape[1] + 1, 2, replace=False))
        part = source.read(0, slice(top, bottom), slice(left, right))
        np.testing.assert_allclose(part, whole[:, top:bottom, left:right], atol=1e-5)


def test_clahe_is_scikit_images():
    array = smooth((256, 320))
    mine = normalized(array, clahe=True, low=0, high=100).read(0)[0]
    theirs = equalize_adapthist(array, kernel_size=64, clip_limit=0.01)
    assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.999


def test_only_a_sample_is_read_and_it_is_always_the_same():
    reads = []

    class Watched:
        shape, dtype = (500, 3000, 3000), np.dtype(np.uint8)

        def __getitem__(self, index):
            plane, rows, columns = index
            size = (rows.stop - rows.start, columns.stop - columns.start)
            reads.append((plane, rows.start, columns.start, size))
            return np.random.default_rng(plane).integers(0, 255, size, dtype=np.uint8)

    first = normalize_sources([open_source(Watched())], NormalizationConfig())[0].statistics
    seen = list(reads)
    assert sum(rows * columns for *_, (rows, columns) in seen) < 15e6
    assert len({plane for plane, *_ in seen}) > 10
    reads.clear()
    assert normalize_sources([open_source(Watched())], NormalizationConfig())[0].statistics == first
    assert reads == seen


def test_record_repeats_the_training_normalisation():
    array = (smooth((90, 90)) * 200).astype(np.uint8)
    trained = normalize_sources([open_source(array)], NormalizationConfig(low=2, clahe=True))
    record = NormalizationRecord.of(trained)
    record = NormalizationRecord.model_validate_json(record.model_dump_json())
    changed = record.model_copy(
        update={
            "statistics": {
                key: value.model_copy(update={"mean": (9.0,)})
                for key, value in record.statistics.items()
            }
        }
    )
    other = (smooth((90, 90), 5) * 100).astype(np.uint8)
    sources = [open_source(array), open_source(other)]
    known, fitted = normalize_sources(sources, NormalizationConfig(), changed)
    assert known.statistics.mean == (9.0,)
    assert known.config == fitted.config == NormalizationConfig(low=2, clahe=True)
    assert fitted.statistics == normalized(other, low=2, clahe=True).statistics


def test_record_of_nothing_or_of_unlike_sources_is_refused():
    array = smooth((70, 70))
    with pytest.raises(ValueError, match="got 0"):
        NormalizationRecord.of([])
    with pytest.raises(ValueError, match="got 2"):
        NormalizationRecord.of([normalized(array), normalized(array, invert=True)])


def test_a_source_is_fitted_when_it_is_first_needed(watched):
    items = [watched(smooth((3, 70, 80), seed)) for seed in range(2)]
    sources = normalize_when_read(items, NormalizationConfig())
    assert not any(item.reads for item in items)
    assert not any(source.is_fitted for source in sources)
    sources[0].read(1)
    assert [source.is_fitted for source in sources] == [True, False]
    assert not items[1].reads
    fitted = normalize_sources(items, NormalizationConfig())
    assert sources[1].statistics == fitted[1].statistics
    assert all(source.is_fitted for source in sources)


def test_a_source_is_fitted_once_for_all_threads(watched):
    item = watched(smooth((3, 70, 80)))
    item.gate.clear()
    (source,) = normalize_when_read([item], NormalizationConfig())
    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(lambda: source.statistics) for _ in range(4)]
        item.gate.set()
        assert len({id(future.result()) for future in found}) == 1
    once = len(item.reads)
    (alone,) = normalize_when_read([again := watched(smooth((3, 70, 80)))], NormalizationConfig())
    assert alone.statistics == source.statistics
    assert once == len(again.reads)


def test_a_failed_fit_is_tried_again(watched):
    item = watched(smooth((3, 70, 80)))
    (source,) = normalize_when_read([item], NormalizationConfig())
    item.broken = OSError("the disk is gone")
    with pytest.raises(UnreadableFileError, match="the disk is gone"):
        source.raw_limits()
    assert not source.is_fitted
    item.broken = None
    assert np.isfinite(source.read(0)).all()


def test_a_record_holds_what_was_needed_and_reads_nothing(watched):
    items = [watched(smooth((3, 70, 80), seed)) for seed in range(3)]
    sources = normalize_when_read(items, NormalizationConfig())
    sources[0].read(0)
    sources[2].read(0)
    for item in items:
        item.broken = OSError("the disk is gone")
    record = NormalizationRecord.of(sources)
    for item in items:
        item.broken = None
    known = {items[number].fingerprint(): sources[number].statistics for number in (0, 2)}
    assert record.statistics == known


def test_statistics_that_are_known_are_not_fitted_again(watched):
    array = smooth((3, 500, 400))
    record = NormalizationRecord.of(normalize_sources([watched(array)], NormalizationConfig()))
    item, fresh = watched(array), watched(array)
    normalize_sources([item], NormalizationConfig(), record)
    item_reads, _ = len(item.reads), fresh.fingerprint()
    assert item_reads == len(fresh.reads)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16])
@pytest.mark.parametrize("invert", [False, True])
def test_limits_normalise_stored_values(dtype, invert):
    limits = np.iinfo(dtype)
    array = np.stack([smooth((60, 70)), smooth((60, 70), 1) / 4])
    array = (array * (limits.max - limits.min) + limits.min).astype(dtype)
    config = NormalizationConfig(invert=invert)
    source = normalize_sources([open_source(array, axes="CYX")], config)[0]
    assert source.is_pointwise
    low, high, scale, offset = source.raw_limits().T[..., None, None]
    values = np.clip(array.astype(np.float32), low, high) * scale + offset
    np.testing.assert_allclose(values, source.read(0), atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"invert": True}, {"clahe": True}])
def test_limits_normalise_scaled_values(settings):
    array = np.stack([smooth((130, 150)), 100 * smooth((130, 150), 1) - 30])
    config = NormalizationConfig(low=5, high=80, **settings)
    source = normalize_sources([open_source(array, axes="CYX")], config)[0]
    assert not source.is_pointwise
    scaled = source.read_scaled(0, slice(7, 100))
    assert scaled.min() >= 0
    assert scaled.max() <= 1
    low, high, scale, offset = source.scaled_limits().T[..., None, None]
    values = np.clip(scaled, low, high) * scale + offset
    np.testing.assert_allclose(values, source.read(0, slice(7, 100)), atol=1e-5)


def test_sparse_files_are_scaled_by_what_they_store(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(40, 8192, 8192), chunks=(1, 256, 256), dtype=np.uint8
    )
    array[17, 7680:7936, 256:512] = 40 + smooth((256, 256)) * 160
    (source,) = normalize_sources([open_source(tmp_path / "a.zarr")], NormalizationConfig())
    assert 40 <= source.statistics.low[0] < 80
    assert 160 < source.statistics.high[0] <= 200
