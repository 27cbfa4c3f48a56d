from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from napari_affmae.config import (
    IGNORE_INDEX,
    AugmentationConfig,
    LabelClass,
    NormalizationConfig,
)
from napari_affmae.data.crops.labelled import LabelledCrops
from napari_affmae.data.formats.opening import open_source
from napari_affmae.data.labels import (
    LabelEncoder,
    LabelledPair,
    count_values,
    default_classes,
    labelled_planes,
    read_labels,
)
from napari_affmae.data.normalization.normalization import normalize_sources
from napari_affmae.data.sources.source import ArraySource
from napari_affmae.errors import DataError

EVERYTHING = AugmentationConfig(affine=1, elastic=1, intensity=1, noise=1)


def classes(*values):
    return default_classes(values)


def pair(image, labels, name="labels"):
    (source,) = normalize_sources([open_source(image)], NormalizationConfig())
    return LabelledPair(source, open_source(labels, name=name))


def checkerboard(planes, height, width, step=20):
    rows, columns = np.mgrid[:height, :width]
    board = ((rows // step + columns // step) % 2).astype(np.uint8)
    return np.repeat(board[None], planes, axis=0)


def test_values_become_indices_in_the_order_of_the_classes():
    order = [LabelClass(value=value, name="x", color="#000000") for value in (7, 0, 3)]
    encoder = LabelEncoder(order, ignore_value=255)
    values = np.array([[7, 0, 3], [255, 3, 7]])
    expected = [[0, 1, 2], [IGNORE_INDEX, 2, 0]]
    np.testing.assert_array_equal(encoder.encode(values, "x"), expected)


def test_values_without_a_class_are_named_and_counted():
    encoder = LabelEncoder(classes(0, 1), ignore_value=None)
    with pytest.raises(DataError, match=r"truth\.tif holds.*-1 \(1 px\), 255 \(2 px\).*\[0, 1\]"):
        encoder.encode(np.array([0, 255, 1, 255, -1]), "truth.tif")


@pytest.mark.parametrize(
    ("values", "ignore", "complaint"),
    [([], None, "at least one"), ([1, 1], None, "must differ"), ([0, 1], 0, "cannot be a class")],
)
def test_classes_that_make_no_sense(values, ignore, complaint):
    same = [LabelClass(value=value, name="x", color="#000000") for value in values]
    with pytest.raises(ValueError, match=complaint):
        LabelEncoder(same, ignore)


def test_default_classes_have_distinct_colours():
    made = default_classes([3, 0, 3, 9])
    assert [(item.value, item.name) for item in made] == [
        (0, "background"),
        (3, "class 3"),
        (9, "class 9"),
    ]
    assert len({item.color for item in default_classes(range(30))}) == 30
    with pytest.raises(ValueError, match="at least 0"):
        default_classes([-1, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16, np.float32, bool])
def test_whole_numbers_of_any_dtype_are_labels(dtype):
    labels = np.eye(6).astype(dtype)
    read = read_labels(open_source(labels), 0, slice(1, 4))
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, np.eye(6)[1:4])


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_fractions_are_no_labels(value):
    labels = np.zeros((6, 6))
    labels[1, 1] = value
    with pytest.raises(TypeError, match=r"plane 0 of mask holds values that are not whole"):
        read_labels(open_source(labels, name="mask"), 0)


def test_values_are_counted():
    labels = open_source(checkerboard(3, 40, 40))
    assert count_values(labels) == {0: 2400, 1: 2400}
    assert count_values(labels, [1]) == {0: 800, 1: 800}


def test_colours_and_other_shapes_are_refused():
    image = np.random.default_rng(0).random((70, 80)).astype(np.float32)
    with pytest.raises(DataError, match=r"has 3 channels.*not colours"):
        pair(image, np.zeros((70, 80, 3), np.uint8))
    with pytest.raises(DataError, match=r"\(1, 70, 80\), its labels labels have \(1, 80, 70\)"):
        pair(image, np.zeros((80, 70), np.uint8))


@pytest.mark.parametrize("augmentation", [None, AugmentationConfig(), EVERYTHING])
def test_crops_and_their_labels_belong_together(augmentation):
    board = checkerboard(2, 150, 170)
    crops = LabelledCrops(
        [pair(board * 200, board)], 64, classes(0, 1), None, augmentation=augmentation, seed=1
    )
    for index in range(8):
        image, target = crops.sample(index)
        assert image.shape == (1, 64, 64)
        assert image.dtype == np.float32
        assert target.shape == (64, 64)
        assert target.dtype == np.int64
        again = crops.sample(index)
        np.testing.assert_array_equal(image, again[0])
        np.testing.assert_array_equal(target, again[1])
        known = target != IGNORE_INDEX
        bright, dark = image[0][target == 1], image[0][target == 0]
        assert known.mean() > 0.3
        assert np.median(bright) > np.median(dark) + 0.5


def test_beyond_the_plane_nothing_is_labelled():
    board = checkerboard(1, 40, 50)
    crops = LabelledCrops([pair(board * 200, board)], 64, classes(0, 1), None)
    image, target = crops.sample(0)
    assert (target != IGNORE_INDEX).sum() == 40 * 50
    assert np.isfinite(image).all()


@pytest.mark.parametrize("augmentation", [None, EVERYTHING])
def test_scribbles_are_in_every_crop(augmentation):
    labels = np.zeros((3, 300, 310), np.uint8)
    labels[1, 5, 3:9] = 1
    labels[1, 290:299, 200] = 2
    labels[2, 150:152, 308] = 2
    image = np.random.default_rng(0).random(labels.shape).astype(np.float32)
    crops = LabelledCrops(
        [pair(image, labels)], 64, classes(1, 2), 0, augmentation=augmentation, seed=0
    )
    np.testing.assert_array_equal(crops.class_pixels, [6, 11])
    seen = set()
    for index in range(60):
        _, target = crops.sample(index)
        found = set(np.unique(target)) - {IGNORE_INDEX}
        assert found
        seen |= found
    assert seen == {0, 1}


def test_class_pixels_are_of_the_chosen_planes():
    labels = np.zeros((3, 64, 64), np.uint8)
    labels[1] = 1
    crops = LabelledCrops([pair(labels, labels)], 64, classes(0, 1), None, planes=[[1, 2]])
    np.testing.assert_array_equal(crops.class_pixels, [64**2, 64**2])
    assert {int(crops.sample(index)[1][0, 0]) for index in range(20)} == {0, 1}


def test_errors_name_file_and_plane(tmp_path):
    labels = checkerboard(3, 64, 64)
    labels[2, 3, 3:5] = 9
    tifffile.imwrite(tmp_path / "truth.tif", labels, photometric="minisblack")
    (source,) = normalize_sources([open_source(labels)], NormalizationConfig())
    bad = LabelledPair(source, open_source(tmp_path / "truth.tif"))
    with pytest.raises(DataError, match=r"plane 2 of truth\.tif holds .* 9 \(2 px\)"):
        LabelledCrops([bad], 64, classes(0, 1), None)
    LabelledCrops([bad], 64, classes(0, 1), 9)


def test_nothing_labelled():
    labels = np.zeros((64, 64), np.uint8)
    with pytest.raises(DataError, match="no pixel is labelled"):
        LabelledCrops([pair(labels, labels)], 64, classes(1), 0)


def test_labels_may_change_while_training():
    labels = np.zeros((64, 64), np.uint8)
    labels[:32] = 1
    crops = LabelledCrops([pair(labels, labels)], 64, classes(1, 2), 0)
    assert (crops.sample(0)[1] == 1).sum() == 0
    labels[40:50] = 2
    assert (crops.sample(0)[1] == 1).sum() == 640


class Painted(ArraySource):
    """Labels that are painted, as in a viewer's layer."""

    def __init__(self, array):
        super().__init__(array, axes="ZYX", name="painted")
        self.array = array
        self.revisions = [0] * len(array)
        self.reads = 0

    def paint(self, plane, rows, value):
        self.array[plane, rows] = value
        self.revisions[plane] += 1

    def revision(self, plane):
        return self.revisions[plane]

    def _fetch(self, index):
        self.reads += 1
        return super()._fetch(index)


def painted_crops(planes=3):
    labels = Painted(np.zeros((planes, 64, 64), np.uint8))
    labels.array[0, :10] = 1
    (image,) = normalize_sources(
        [open_source(np.random.default_rng(0).random(labels.array.shape))], NormalizationConfig()
    )
    return labels, LabelledCrops([LabelledPair(image, labels)], 64, classes(1, 2), 0, seed=0)


def test_painted_planes_are_looked_at_again():
    labels, crops = painted_crops()
    before = [crops.sample(index) for index in range(5)]
    reads = labels.reads
    assert not crops.refresh()
    assert labels.reads == reads
    for (image, target), index in zip(before, range(5), strict=True):
        np.testing.assert_array_equal(image, crops.sample(index)[0])
        np.testing.assert_array_equal(target, crops.sample(index)[1])
    labels.paint(2, slice(20, 25), 2)
    reads = labels.reads
    assert crops.refresh()
    assert labels.reads == reads + 1
    np.testing.assert_array_equal(crops.class_pixels, [640, 320])
    seen = {int(crops.sample(index)[1].max()) for index in range(20)}
    assert seen == {0, 1}
    labels.paint(0, slice(0, 10), 0)
    assert crops.refresh()
    np.testing.assert_array_equal(crops.class_pixels, [0, 320])
    assert {int(crops.sample(index)[1].max()) for index in range(20)} == {1}


def test_stored_labels_are_not_asked_for_changes():
    labels = open_source(np.ones((3, 64, 64), np.uint8))
    (image,) = normalize_sources(
        [open_source(np.eye(64)[None].repeat(3, 0))], NormalizationConfig()
    )
    crops = LabelledCrops([LabelledPair(image, labels)], 64, classes(1, 2), 0)
    labels.revision = None
    assert not crops.refresh()


def test_labels_that_are_all_gone_leave_the_crops():
    labels, crops = painted_crops()
    labels.paint(0, slice(None), 0)
    assert crops.refresh()
    np.testing.assert_array_equal(crops.class_pixels, [640, 0])
    assert (crops.sample(0)[1] == IGNORE_INDEX).all()


def test_values_painted_later_without_a_class_are_ignored_and_told():
    labels, crops = painted_crops()
    labels.paint(0, slice(30, 40), 9)
    assert crops.refresh()
    assert crops.unknown_values == {9}
    np.testing.assert_array_equal(crops.class_pixels, [640, 0])
    assert (crops.sample(0)[1] >= 0).sum() == 640


def test_painting_while_threads_draw():
    labels, crops = painted_crops(planes=2)
    with ThreadPoolExecutor(3) as threads:
        drawn = [threads.submit(crops.sample, index) for index in range(60)]
        for row in range(12, 60):
            labels.paint(row % 2, slice(row, row + 2), 1 + row % 2)
            crops.refresh()
        for item in drawn:
            assert (item.result()[1] != IGNORE_INDEX).any()
    counts = [(labels.array == value).sum() for value in (1, 2)]
    np.testing.assert_array_equal(crops.class_pixels, counts)


def test_planes_that_hold_labels():
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[1, 3, 3] = labels[3, 0, 0] = 2
    assert labelled_planes(open_source(labels, axes="ZYX"), 0) == [1, 3]
    assert labelled_planes(open_source(labels, axes="ZYX"), None) == [0, 1, 2, 3]
