import numpy as np
import pytest

from napari_affmae.config import IGNORE_INDEX, AugmentationConfig, NormalizationConfig
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.labels import LabelledPair, default_classes
from napari_affmae.data.normalization.normalization import normalize_sources
from napari_affmae.data.sources.source import ArraySource
from napari_affmae.errors import DataError, UnreadablePairError

EVERYTHING = AugmentationConfig(affine=1, elastic=1, intensity=1, noise=1)
BENT = AugmentationConfig(affine=1, elastic=1, intensity=0, noise=0)
SOME = AugmentationConfig(affine=0.5, elastic=0.5, intensity=0, noise=0)


def classes(*values):
    return default_classes(values)


def pair(image, labels):
    (source,) = normalize_sources([open_source(image)], NormalizationConfig(low=0, high=100))
    return LabelledPair(source, labels if isinstance(labels, ArraySource) else open_source(labels))


def noise(shape):
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def checkerboard(planes, height, width, step=20):
    rows, columns = np.mgrid[:height, :width]
    board = ((rows // step + columns // step) % 2).astype(np.uint8)
    return np.repeat(board[None], planes, axis=0)


@pytest.mark.parametrize("augmentation", [None, AugmentationConfig(), EVERYTHING])
def test_crops_follow_from_seed_and_number(drawing, augmentation):
    board = checkerboard(2, 150, 170)
    pairs = [pair(board * 200, board)]
    one, two, other = (
        drawing.labelled(pairs, classes(0, 1), None, augmentation=augmentation, seed=seed)
        for seed in (1, 1, 2)
    )
    images, targets = drawing.cut(one, 8)
    assert (images.shape, images.dtype) == ((8, 1, 64, 64), np.float32)
    assert (targets.shape, targets.dtype) == ((8, 64, 64), np.int64)
    for number in reversed(range(8)):
        image, target = drawing.cut(two, 1, number)
        np.testing.assert_array_equal(image[0], images[number])
        np.testing.assert_array_equal(target[0], targets[number])
    assert not np.array_equal(drawing.cut(other, 8)[0], images)


@pytest.mark.parametrize("augmentation", [None, AugmentationConfig(), EVERYTHING])
def test_crops_and_their_labels_belong_together(drawing, augmentation):
    board = checkerboard(2, 150, 170)
    crops = drawing.labelled(
        [pair(board * 200, board)], classes(0, 1), None, augmentation=augmentation
    )
    for image, target in zip(*drawing.cut(crops, 20), strict=True):
        known = target != IGNORE_INDEX
        assert known.mean() > 0.3
        bright, dark = image[0][target == 1], image[0][target == 0]
        assert np.median(bright) > np.median(dark) + 0.5


@pytest.mark.parametrize("augmentation", [None, BENT, SOME])
@pytest.mark.parametrize("size", [(150, 170), (40, 50), (2100, 70)])
def test_labels_bend_as_their_image(drawing, augmentation, size):
    board = checkerboard(2, *size, 11)
    crops = drawing.labelled([pair(board, board)], classes(0, 1), None, augmentation=augmentation)
    std, mean = (getattr(crops._pairs[0].image.statistics, name)[0] for name in ("std", "mean"))
    images, targets = drawing.cut(crops, 40)
    values = images[:, 0] * std + mean
    known = targets != IGNORE_INDEX
    # A label is that of the nearest pixel, which has a quarter of the weight or more.
    assert (targets[known & (values < 0.24)] == 0).all()
    assert (targets[known & (values > 0.76)] == 1).all()
    sure = (values < 0.24) | (values > 0.76)
    assert sure[known].mean() > 0.8


def test_beyond_the_plane_nothing_is_labelled(drawing):
    board = checkerboard(1, 40, 50)
    crops = drawing.labelled([pair(board * 200, board)], classes(0, 1), None)
    image, target = drawing.cut(crops, 1)
    assert (target != IGNORE_INDEX).sum() == 40 * 50
    assert np.isfinite(image).all()


@pytest.mark.parametrize("augmentation", [None, AugmentationConfig(), BENT])
@pytest.mark.parametrize("crop", [64, 65])
@pytest.mark.parametrize(
    "shape", [(300, 310), (2100, 150), (64, 64), (30, 200), (20, 10), (1, 400)]
)
def test_the_only_labelled_pixel_is_in_every_crop(drawing, augmentation, crop, shape):
    image = noise(shape)
    rng = np.random.default_rng(1)
    places = [(0, 0), (shape[0] - 1, shape[1] - 1), *rng.integers(0, shape, (2, 2)).tolist()]
    if shape[0] > 2048:
        places.append((1040, 70))  # where blocks overlap
    for row, column in places:
        labels = np.zeros(shape, np.uint8)
        labels[row, column] = 1
        crops = drawing.labelled(
            [pair(image, labels)], classes(1), 0, crop=crop, augmentation=augmentation
        )
        _, targets = drawing.cut(crops, 20)
        assert (targets == 0).any(axis=(1, 2)).all()


def test_turned_crops_do_not_leave_a_plane_that_is_large_enough(drawing):
    labels = np.ones((80, 100), np.uint8)
    flips = AugmentationConfig(affine=0, elastic=0, intensity=0, noise=0)
    crops = drawing.labelled([pair(labels, labels)], classes(1), 0, augmentation=flips)
    _, targets = drawing.cut(crops, 60)
    assert (targets == 0).all()


@pytest.mark.parametrize("augmentation", [None, EVERYTHING])
def test_scribbles_are_in_every_crop(drawing, augmentation):
    labels = np.zeros((3, 300, 310), np.uint8)
    labels[1, 5, 3:9], labels[1, 290:299, 200], labels[2, 150:152, 308] = 1, 2, 2
    crops = drawing.labelled(
        [pair(noise(labels.shape), labels)], classes(1, 2), 0, augmentation=augmentation
    )
    np.testing.assert_array_equal(crops.survey.class_pixels, [6, 11])
    _, targets = drawing.cut(crops, 60)
    found = [set(np.unique(target)) - {IGNORE_INDEX} for target in targets]
    assert all(found)
    assert set.union(*found) == {0, 1}


@pytest.mark.parametrize(("size", "crop"), [(100, 64), (40, 64), (65, 64), (2100, 64)])
@pytest.mark.parametrize("at", [0, 0.1, 0.5, 1])
def test_crops_around_a_pixel_start_everywhere_that_shows_it(drawing, size, crop, at):
    labels = np.zeros((70, size), np.uint8)
    column = round(at * (size - 1))
    labels[30, column] = 1
    crops = drawing.labelled([pair(noise(labels.shape), labels)], classes(1), 0, crop=crop)
    plan = drawing.planned(crops, 2000)
    (block,) = crops.pool.residents.rows
    starts = plan.shift[:, 1].numpy() - (crop - 1) / 2 + block["corner"][1]
    allowed = range(min(0, size - crop), max(0, size - crop) + 1)
    shown = {start for start in allowed if start <= column <= start + crop - 1}
    if size > 2048:
        assert set(starts) <= shown
        assert len(set(starts)) >= len(shown) / 2  # those in the pixel's own block
    else:
        assert set(starts) == shown


def test_only_planes_with_labels_are_read(drawing, watched):
    labels = np.zeros((30, 64, 64), np.uint8)
    labels[[3, 17]] = 1
    image = watched(noise(labels.shape))
    (source,) = normalize_sources([image], NormalizationConfig())
    image.reads.clear()
    made = LabelledPair(source, open_source(labels, axes="ZYX"))
    drawing.cut(drawing.labelled([made], classes(1), 0), 20)
    assert sorted(image.reads) == [3, 17]


def test_class_pixels_and_crops_are_of_the_chosen_planes(drawing):
    labels = np.zeros((3, 64, 64), np.uint8)
    labels[1] = 1
    crops = drawing.labelled([pair(labels, labels)], classes(0, 1), None, planes=[[1, 2]])
    np.testing.assert_array_equal(crops.survey.class_pixels, [64**2, 64**2])
    assert set(drawing.cut(crops, 20)[1][:, 0, 0]) == {0, 1}


def test_nothing_labelled(drawing):
    labels = np.zeros((64, 64), np.uint8)
    with pytest.raises(DataError, match="no pixel is labelled"):
        drawing.labelled([pair(labels, labels)], classes(1), 0)


def test_a_pair_that_breaks_is_named(drawing, watched):
    image = watched(noise((3, 64, 64)), name="cells")
    (source,) = normalize_sources([image], NormalizationConfig())
    labels = watched(np.ones((3, 64, 64), np.uint8), name="drawn")
    crops = drawing.labelled([LabelledPair(source, labels)], classes(1), 0)
    image.broken = OSError("the disk is gone")
    with pytest.raises(UnreadablePairError, match=r"pair cells and drawn: .*the disk is gone"):
        drawing.cut(crops, 1)


def painted_crops(drawing, painted, planes=3, size=(64, 64), **options):
    labels = painted(np.zeros((planes, *size), np.uint8))
    labels.array[0, :10] = 1
    made = pair(noise(labels.array.shape), labels)
    return labels, drawing.labelled([made], classes(1, 2), 0, **options)


def assert_shows_the_labels(drawing, crops, labels, first=0):
    """What is in the pool is what is painted, and crops are drawn from it."""
    for _ in crops.advance(first):
        pass
    indices = np.where(np.isin(labels.array, [1, 2]), labels.array - 1, 255)
    for row in crops.pool.residents.rows:
        (top, left), (height, width) = row["corner"], row["size"].tolist()
        here = crops.pool.labels[int(row["label_offset"]) :][: height * width]
        expected = indices[row["plane"], top : top + height, left : left + width]
        np.testing.assert_array_equal(here.view(height, width).numpy(), expected)
    _, targets = drawing.cut(crops, 20, first)
    assert (targets != IGNORE_INDEX).any(axis=(1, 2)).all()
    return set(np.unique(targets)) - {IGNORE_INDEX}


def test_painting_a_plane_in_the_pool_changes_its_crops(drawing, painted):
    labels, crops = painted_crops(drawing, painted)
    before = drawing.cut(crops, 5)
    assert not crops.refresh()
    for one, other in zip(before, drawing.cut(crops, 5), strict=True):
        np.testing.assert_array_equal(one, other)
    labels.paint(0, slice(40, 50), slice(3, 60), 2)
    assert crops.refresh()
    assert assert_shows_the_labels(drawing, crops, labels) == {0, 1}
    np.testing.assert_array_equal(crops.survey.class_pixels, [640, 570])
    labels.paint(0, slice(0, 10), slice(0, 64), 0)
    assert crops.refresh()
    assert assert_shows_the_labels(drawing, crops, labels) == {1}


@pytest.mark.parametrize("started", [False, True])
def test_planes_that_had_no_label_come_beside_the_others(drawing, painted, started):
    labels, crops = painted_crops(drawing, painted, planes=6)
    if started:
        assert_shows_the_labels(drawing, crops, labels)
    for plane in (2, 4, 5):
        labels.paint(plane, slice(20, 25), slice(0, 64), 2)
        assert crops.refresh()
    assert assert_shows_the_labels(drawing, crops, labels) == {0, 1}
    assert sorted(crops.pool.residents.rows["plane"].tolist()) == [0, 2, 4, 5]
    assert len(crops.pool.residents) == 4


def test_a_large_plane_may_be_painted_later(drawing, painted):
    labels, crops = painted_crops(drawing, painted, planes=2, size=(2100, 2200))
    _, others = painted_crops(drawing, painted, planes=1)
    pairs = [others._pairs[0], crops._pairs[0]]
    labels.array[:] = 0
    crops = drawing.labelled(pairs, classes(1, 2), 0, capacity=64**2)
    drawing.cut(crops, 5)
    labels.paint(1, slice(100, 200), slice(90, 300), 2)
    assert crops.refresh()
    _, targets = drawing.cut(crops, 40)
    assert set(np.unique(targets)) == {IGNORE_INDEX, 0, 1}
    assert (targets != IGNORE_INDEX).any(axis=(1, 2)).all()


def test_labels_painted_while_their_block_is_on_its_way_are_seen(drawing, watched, painted):
    labels = painted(np.ones((30, 64, 64), np.uint8))
    image = watched(noise(labels.array.shape))
    (source,) = normalize_sources([image], NormalizationConfig())
    pairs = [LabelledPair(source, labels)]
    crops = drawing.labelled(pairs, classes(1, 2), 0, capacity=6 * 2 * 4096)
    image.seconds = 0.005
    for first in range(0, 600, 8):
        for _ in crops.advance(first):
            pass
        # Readers are at work on the next blocks, whose labels they may have or not.
        labels.paint(first // 8 % 30, slice(first % 60, 64), slice(0, 64), 1 + first // 8 % 2)
        assert crops.refresh()
        assert_shows_the_labels(drawing, crops, labels, first)


def test_painting_while_blocks_roll_and_new_ones_are_brought(drawing, painted):
    labels, crops = painted_crops(drawing, painted, planes=40, capacity=5 * 2 * 4096)
    for first in range(0, 3000, 20):
        labels.paint(first // 40 % 40, slice(first % 50, 60), slice(7, 50), 1 + first // 20 % 2)
        assert crops.refresh()
        assert_shows_the_labels(drawing, crops, labels, first)
    assert len(crops.pool.residents) == 5


def test_labels_of_a_plane_in_parts_reach_all_of_them(drawing, painted):
    labels, crops = painted_crops(drawing, painted, planes=1, size=(2100, 2200))
    assert_shows_the_labels(drawing, crops, labels)
    labels.paint(0, slice(1000, 1100), slice(1000, 1200), 2)
    labels.paint(0, slice(2090, 2100), slice(5, 9), 2)
    assert crops.refresh()
    assert assert_shows_the_labels(drawing, crops, labels) == {0, 1}
    assert len(crops.pool.residents) == 4


def test_labels_that_are_all_gone_leave_the_crops(drawing, painted):
    labels, crops = painted_crops(drawing, painted)
    labels.paint(0, slice(0, 64), slice(0, 64), 0)
    assert crops.refresh()
    np.testing.assert_array_equal(crops.survey.class_pixels, [0, 0])
    assert (drawing.cut(crops, 4)[1] == IGNORE_INDEX).all()


def test_a_labelled_plane_comes_where_all_in_the_pool_were_erased(drawing, painted):
    labels = painted(np.ones((30, 64, 64), np.uint8))
    made = pair(noise(labels.array.shape), labels)
    crops = drawing.labelled([made], classes(1, 2), 0, capacity=5 * 2 * 4096)
    assert_shows_the_labels(drawing, crops, labels)
    for plane in set(range(30)) - {11}:
        labels.paint(plane, slice(0, 64), slice(0, 64), 0)
    assert crops.refresh()
    for first in range(0, 400, 20):
        assert assert_shows_the_labels(drawing, crops, labels, first) == {0}


def test_values_painted_later_without_a_class_are_ignored(drawing, painted):
    labels, crops = painted_crops(drawing, painted)
    drawing.cut(crops, 1)
    labels.paint(0, slice(30, 40), slice(0, 64), 9)
    assert crops.refresh()
    assert crops.survey.unknown_values == {9}
    assert (drawing.cut(crops, 1)[1] >= 0).sum() == 640
