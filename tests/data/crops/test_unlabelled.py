import numpy as np
import pytest
import torch

from napari_affmae.config import AugmentationConfig, NormalizationConfig
from napari_affmae.data.crops.unlabelled import PretrainCrops
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.normalization.normalization import normalize_sources
from napari_affmae.errors import DataError, UnreadableFileError

CPU = torch.device("cpu")
EVERYTHING = AugmentationConfig(affine=1, elastic=1, intensity=1, noise=1)
FLIPS = AugmentationConfig(affine=0, elastic=0, intensity=0, noise=0)


def normalized(*arrays, axes=None, **settings):
    sources = [open_source(array, axes=axes) for array in arrays]
    return normalize_sources(sources, NormalizationConfig(**({"low": 0, "high": 100} | settings)))


def numbered(planes, height, width):
    """Every pixel has its own value."""
    size = planes * height * width
    return np.arange(size, dtype=np.float64).reshape(planes, height, width)


def undone(source, values):
    """Values before normalisation."""
    numbers = source.statistics
    scaled = values.astype(np.float64) * numbers.std[0] + numbers.mean[0]
    return np.rint(scaled * (numbers.high[0] - numbers.low[0]) + numbers.low[0])


def starts(crops, plan):
    """First row and column of straight crops, in their blocks."""
    return plan.shift.numpy() - (crops._grid.crop - 1) / 2


def test_crops_are_parts_of_planes(drawing):
    array = numbered(3, 90, 100)
    (source,) = normalized(array)
    corners = set()
    for crop in drawing.cut(drawing.unlabelled([source], seed=5), 40)[0]:
        values = undone(source, crop[0])
        plane, top, left = (int(i) for i in np.unravel_index(int(values[0, 0]), array.shape))
        np.testing.assert_array_equal(values, array[plane, top : top + 64, left : left + 64])
        corners.add((plane, top, left))
    assert len(corners) > 35


def test_flipped_crops_are_turned_parts_of_planes(drawing):
    array = numbered(1, 90, 100)
    (source,) = normalized(array)
    turns = set()
    for crop in drawing.cut(drawing.unlabelled([source], augmentation=FLIPS), 60)[0]:
        values = undone(source, crop[0])
        _, top, left = np.unravel_index(int(values.min()), array.shape)
        window = array[0, top : top + 64, left : left + 64]
        (turn,) = (
            number
            for number in range(8)
            if np.array_equal(np.rot90(window.T if number > 3 else window, number), values)
        )
        turns.add(turn)
    assert len(turns) == 8


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "f4"])
@pytest.mark.parametrize("settings", [{}, {"invert": True}, {"clahe": True}])
@pytest.mark.parametrize("channels", [1, 3])
def test_straight_crops_are_normalised_windows(drawing, dtype, settings, channels):
    rng = np.random.default_rng(0)
    low = -100 if np.dtype(dtype).kind != "u" else 0
    shapes = [(2, channels, 90, 100), (1, channels, 40, 200), (1, channels, 50, 30)]
    arrays = [rng.integers(low, 100, shape).astype(dtype) for shape in shapes]
    sources = normalized(*arrays, axes="ZCYX", low=2, high=97, **settings)
    crops = drawing.unlabelled(sources)
    plan = drawing.planned(crops, 40)
    images = crops.cut(plan)[0].numpy()
    rows = {int(row["offset"]): row for row in crops.pool.residents.rows}
    seen = set()
    for image, offset, (top, left) in zip(
        images, plan.offset.tolist(), starts(crops, plan).astype(int), strict=True
    ):
        row = rows[offset]
        plane = sources[row["source"]].read(int(row["plane"]))
        down, right = (slice(max(0, first), max(0, first) + 64) for first in (top, left))
        pads = [
            (max(0, -first), max(0, first + 64 - size))
            for first, size in ((top, plane.shape[1]), (left, plane.shape[2]))
        ]
        whole = np.pad(plane, [(0, 0), *pads], mode="reflect")
        np.testing.assert_allclose(image, whole[:, down, right], atol=1e-5)
        seen.add(int(row["source"]))
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("augmentation", [None, AugmentationConfig(), EVERYTHING])
def test_crops_follow_from_seed_and_number(drawing, augmentation):
    sources = normalized(*np.random.default_rng(0).random((2, 3, 80, 90)))
    one, two, other = (
        drawing.unlabelled(sources, augmentation=augmentation, seed=seed) for seed in (3, 3, 4)
    )
    (together,) = drawing.cut(one, 8)
    backwards = [drawing.cut(two, 1, number)[0][0] for number in reversed(range(8))]
    np.testing.assert_array_equal(together, backwards[::-1])
    assert together.shape == (8, 1, 64, 64)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    differing = drawing.cut(other, 8)[0]
    assert not any(np.array_equal(a, b) for a, b in zip(together, differing, strict=True))
    assert len({crop.tobytes() for crop in together}) == 8
    keys = [drawing.planned(crops, 8).key.tolist() for crops in (one, two, other)]
    assert keys[0] == keys[1]
    assert len({*keys[0], *keys[2]}) == 16


def test_places_cover_a_plane_evenly_up_to_its_edges(drawing):
    crops = drawing.unlabelled(normalized(np.random.default_rng(0).random((100, 70))))
    corners = starts(crops, drawing.planned(crops, 37 * 7 * 40)).astype(int)
    counts = np.zeros((37, 7), int)
    np.add.at(counts, tuple(corners.T), 1)
    assert counts.sum() == 37 * 7 * 40
    assert counts.min() > 10
    assert ((counts - 40) ** 2 / 40).sum() < 350  # chi squared of 258 degrees


def test_places_cover_a_plane_in_parts_evenly(drawing):
    crops = drawing.unlabelled(
        normalized(np.random.default_rng(0).integers(0, 255, (64, 5000), dtype=np.uint8))
    )
    plan = drawing.planned(crops, 8000)
    corners = {int(row["offset"]): row["corner"][1] for row in crops.pool.residents.rows}
    assert len(corners) == 3
    first = starts(crops, plan)[:, 1] + [corners[offset] for offset in plan.offset.tolist()]
    counts, _ = np.histogram(first, 10, (0, 5000 - 63))
    assert np.abs(counts - 800).max() < 120
    assert first.min() < 10
    assert first.max() > 5000 - 64 - 10


@pytest.mark.parametrize("size", [40, 63, 64, 65])
def test_small_planes_are_shown_from_every_start(drawing, size):
    crops = drawing.unlabelled(normalized(np.random.default_rng(0).random((size, size))))
    first = starts(crops, drawing.planned(crops, 2000))
    allowed = set(range(min(0, size - 64), max(0, size - 64) + 1))
    assert set(first[:, 0]) == set(first[:, 1]) == allowed


def test_planes_are_drawn_by_area(drawing):
    small, large = np.random.default_rng(0).random((2, 4, 128, 256))
    crops = drawing.unlabelled(normalized(small[:, :64, :64], large[:1]))
    plan = drawing.planned(crops, 3000)
    of_small = (plan.size == 64).all(dim=1).double().mean().item()
    assert of_small == pytest.approx(1 / 3, abs=0.03)


def test_planes_are_drawn_by_area_while_they_come_and_go(drawing):
    small, large = np.random.default_rng(0).integers(0, 255, (2, 40, 128, 128), dtype=np.uint8)
    sources = normalized(small[:, :64, :64], large)
    crops = drawing.unlabelled(sources, 32, capacity=10 * 128**2)
    of_small = []
    for first in range(0, 40_000, 100):
        plan = drawing.planned(crops, 100, first)
        of_small.append((plan.size == 64).all(dim=1).double().mean().item())
    assert np.mean(of_small) == pytest.approx(1 / 5, abs=0.03)


def test_only_the_chosen_planes_are_drawn(drawing):
    array = numbered(4, 64, 64)
    sources = normalized(array, array + 1e6)
    (images,) = drawing.cut(drawing.unlabelled(sources, planes=[[1, 3], []]), 30)
    drawn = {int(undone(sources[0], image[0])[0, 0]) // 64**2 for image in images}
    assert drawn == {1, 3}


@pytest.mark.parametrize("augmentation", [None, EVERYTHING])
@pytest.mark.parametrize("shape", [(1, 40, 50), (2, 20, 200), (1, 1, 70)])
def test_planes_smaller_than_the_crop_are_mirrored(drawing, shape, augmentation):
    sources = normalized(np.random.default_rng(0).random(shape))
    (images,) = drawing.cut(drawing.unlabelled(sources, augmentation=augmentation), 4)
    assert images.shape == (4, 1, 64, 64)
    assert np.isfinite(images).all()
    if augmentation is None:
        planes = [sources[0].read(plane) for plane in range(shape[0])]
        assert np.min(planes) - 1e-5 <= images.min()
        assert images.max() <= np.max(planes) + 1e-5


def test_mirrored_pixels_are_the_planes_own(drawing):
    (source,) = normalized(numbered(1, 40, 64))
    for image in drawing.cut(drawing.unlabelled([source], seed=2), 5)[0]:
        rows = undone(source, image[0])[:, 0] // 64
        assert set(rows) == set(range(40))
        assert (np.abs(np.diff(rows)) == 1).all()


def test_bent_crops_may_lie_beyond_a_tiny_plane(drawing):
    sources = normalized(np.random.default_rng(0).integers(1, 255, (1, 400), dtype=np.uint8))
    bent = AugmentationConfig(affine=1, elastic=1)
    (images,) = drawing.cut(drawing.unlabelled(sources, 256, augmentation=bent), 5)
    assert np.isfinite(images).all()


def test_channels_must_agree(drawing):
    one = normalized(np.random.default_rng(0).random((70, 70)))
    two = normalized(np.random.default_rng(0).random((2, 70, 70)), axes="CYX")
    with pytest.raises(DataError, match=r"differ in channels.*has 1.*has 2"):
        drawing.unlabelled([*one, *two])
    assert drawing.cut(drawing.unlabelled(two), 1)[0].shape == (1, 2, 64, 64)


def test_nothing_to_draw_from(drawing):
    with pytest.raises(DataError, match="no image"):
        drawing.unlabelled([])
    sources = normalized(np.random.default_rng(0).random((2, 70, 70)))
    with pytest.raises(DataError, match="no image"):
        drawing.unlabelled(sources, planes=[[]])
    with pytest.raises(DataError, match="no image"):
        PretrainCrops.fixed(sources, 64, 4, planes=[[]], device=CPU)
    with pytest.raises(ValueError, match="planes are given for 2 of 1"):
        drawing.unlabelled(sources, planes=[[0], [0]])


def breaking(watched, count=3):
    arrays = np.random.default_rng(0).random((count, 20, 70, 70))
    items = [watched(array, name=str(number)) for number, array in enumerate(arrays)]
    sources = normalize_sources(items, NormalizationConfig())
    for item in items:
        item.reads.clear()
    return items, sources


def test_a_source_that_breaks_is_left_out(drawing, watched):
    items, sources = breaking(watched)
    crops = drawing.unlabelled(sources, capacity=6 * 70**2 * 4)
    drawing.cut(crops, 20)
    items[1].broken = OSError("the disk is gone")
    for first in range(0, 400, 20):
        assert np.isfinite(drawing.cut(crops, 20, first)[0]).all()
    assert list(crops.left_out) == [1]
    assert "the disk is gone" in str(crops.left_out[1])
    items[0].broken = items[2].broken = OSError("gone too")
    with pytest.raises(UnreadableFileError, match="cannot read plane"):
        [drawing.cut(crops, 20, first) for first in range(400, 800, 20)]


def test_fixed_crops_read_only_their_blocks(watched):
    items, sources = breaking(watched)
    images, left_out = PretrainCrops.fixed(sources, 64, 5, seed=2, device=CPU)
    assert images.shape == (5, 1, 64, 64)
    assert images.dtype == torch.float32
    assert not left_out
    assert 0 < sum(len(item.reads) for item in items) <= 5
    again, _ = PretrainCrops.fixed(sources, 64, 5, seed=2, device=CPU)
    assert torch.equal(again, images)
    other, _ = PretrainCrops.fixed(sources, 64, 5, seed=3, device=CPU)
    assert not torch.equal(other, images)


def test_fixed_crops_are_normalised_windows_of_the_chosen_planes():
    array = numbered(5, 80, 90)
    (source,) = normalized(array)
    images, _ = PretrainCrops.fixed([source], 64, 30, planes=[[1, 4]], device=CPU)
    planes = set()
    for image in images.numpy():
        values = undone(source, image[0])
        plane, top, left = (int(i) for i in np.unravel_index(int(values[0, 0]), array.shape))
        np.testing.assert_array_equal(values, array[plane, top : top + 64, left : left + 64])
        planes.add(plane)
    assert planes == {1, 4}


def test_fixed_crops_are_drawn_by_area():
    small, large = np.random.default_rng(0).random((2, 128, 256))
    sources = normalized(1e-3 * small[:64, :64], large)
    flat = sources[0].statistics.model_copy(update={"std": (1e6,)})
    sources[0]._statistics = flat  # crops of the small plane are recognised by it
    for seed in range(4):
        images, _ = PretrainCrops.fixed(sources, 64, 300, seed=seed, device=CPU)
        of_small = (images.amax(dim=(1, 2, 3)) < 0.1).double().mean().item()
        assert of_small == pytest.approx(1 / 9, abs=0.06)


def test_fixed_crops_leave_out_what_is_broken(watched):
    items, sources = breaking(watched)
    items[1].broken = OSError("the disk is gone")
    images, left_out = PretrainCrops.fixed(sources, 64, 20, device=CPU)
    assert list(left_out) == [1]
    assert "the disk is gone" in str(left_out[1])
    assert torch.isfinite(images).all()
    with_good_ones, _ = PretrainCrops.fixed(
        sources, 64, 20, planes=[range(20), [], range(20)], device=CPU
    )
    assert torch.equal(images, with_good_ones)


@pytest.mark.parametrize("broken", [(0, 1, 2), (0, 2)])
def test_there_are_no_fixed_crops_where_all_is_broken(watched, broken):
    items, sources = breaking(watched)
    for number in broken:
        items[number].broken = OSError("the disk is gone")
    planes = [range(20) if number in broken else [] for number in range(3)]
    images, left_out = PretrainCrops.fixed(sources, 64, 20, planes=planes, device=CPU)
    assert images is None
    assert set(left_out) == set(broken)
