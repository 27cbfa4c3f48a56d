import numpy as np
import pytest
import tifffile

from napari_affmae.config import NormalizationConfig
from napari_affmae.data.crops.label_survey import UNLABELLED, LabelSurvey
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.labels import LabelledPair, default_classes
from napari_affmae.data.normalization.normalization import normalize_when_read
from napari_affmae.data.sources.source import ArraySource
from napari_affmae.errors import DataError, UnreadablePairError

CLASSES = default_classes([1, 2])


def pair(labels, name="labels"):
    source = labels
    if not isinstance(labels, ArraySource):
        source = open_source(labels, axes="ZYX", name=name)
    shape = (source.n_planes, source.height, source.width)
    image = open_source(np.zeros(shape, np.uint8), axes="ZYX", name="cells")
    return LabelledPair(normalize_when_read([image], NormalizationConfig())[0], source)


def survey(labels, planes=None, classes=CLASSES, ignore=0):
    made = pair(labels)
    planes = range(made.labels.n_planes) if planes is None else planes
    return LabelSurvey([made], [(0, plane) for plane in planes], classes, ignore)


def scattered(shape, seed=0, share=0.001):
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 3, shape) * (rng.random(shape) < share)).astype(np.uint8)


def assert_looked(found, array):
    """Counts and places are those that a new survey finds."""
    new = survey(array.copy())
    np.testing.assert_array_equal(found.class_pixels, new.class_pixels)
    for plane, labels in enumerate(array):
        np.testing.assert_array_equal(found.anchors(0, plane), new.anchors(0, plane))
        area = slice(0, labels.shape[0]), slice(0, labels.shape[1])
        np.testing.assert_array_equal(found.read(0, plane, *area), new.read(0, plane, *area))


@pytest.mark.parametrize("shape", [(2, 200, 170), (1, 64, 64), (1, 5, 3), (1, 33, 31)])
@pytest.mark.parametrize("share", [0.001, 0.05, 1])
def test_each_square_that_has_labels_gives_one_of_them(shape, share):
    labels = scattered(shape, share=share)
    labels[0, -1, -1] = 1
    found = survey(labels)
    for plane, values in enumerate(labels):
        anchors = found.anchors(0, plane)
        assert anchors.dtype == np.int64
        assert (values[tuple(anchors.T)] > 0).all()
        squares = {tuple(square) for square in (anchors // 32).tolist()}
        assert len(squares) == len(anchors)
        assert squares == {tuple(square) for square in (np.argwhere(values) // 32).tolist()}


def test_of_the_labels_of_a_square_one_near_its_middle_is_taken():
    labels = np.zeros((1, 64, 64), np.uint8)
    labels[0, 32:, 32:] = 1
    labels[0, 3, 4], labels[0, 20, 10] = 1, 2
    assert survey(labels).anchors(0, 0).tolist() == [[20, 10], [47, 47]]


def test_pixels_are_counted_by_class_on_the_chosen_planes():
    labels = np.zeros((3, 64, 64), np.uint8)
    labels[0, :2], labels[1, :3], labels[2, 0, 0] = 1, 2, 2
    np.testing.assert_array_equal(survey(labels).class_pixels, [128, 193])
    np.testing.assert_array_equal(survey(labels, [0, 2]).class_pixels, [128, 1])
    reverse = survey(labels, classes=default_classes([2, 1])[::-1])
    np.testing.assert_array_equal(reverse.class_pixels, [193, 128])


def test_labels_become_class_indices_in_bytes():
    labels = np.array([[[0, 1, 2], [2, 9, 1]]], np.int32)
    found = survey(labels, classes=default_classes([0, 1, 2]), ignore=9)
    indices = found.read(0, 0, slice(0, 2), slice(1, 3))
    assert indices.dtype == np.uint8
    np.testing.assert_array_equal(indices, [[1, 2], [UNLABELLED, 1]])


def test_there_are_as_many_classes_as_a_byte_tells_from_no_label():
    labels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    found = survey(labels, classes=default_classes(range(255)), ignore=255)
    whole = found.read(0, 0, slice(0, 16), slice(0, 16))
    np.testing.assert_array_equal(whole.ravel(), np.arange(256))
    np.testing.assert_array_equal(found.class_pixels, np.ones(255))
    with pytest.raises(ValueError, match="at most 255 classes, got 256"):
        survey(labels, classes=default_classes(range(256)), ignore=None)


def test_errors_name_file_and_plane(tmp_path):
    labels = np.ones((3, 64, 64), np.uint8)
    labels[2, 3, 3:5] = 9
    tifffile.imwrite(tmp_path / "truth.tif", labels, photometric="minisblack")
    truth = open_source(tmp_path / "truth.tif")
    made = LabelledPair(pair(labels).image, truth)
    places = [(0, plane) for plane in range(3)]
    with pytest.raises(DataError, match=r"plane 2 of truth\.tif holds .* 9 \(2 px\)"):
        LabelSurvey([made], places, CLASSES, None)
    with pytest.raises(DataError, match=r"^one holds .* 9 \(2 px\)"):
        LabelSurvey([pair(labels[2:], "one")], [(0, 0)], CLASSES, None)
    np.testing.assert_array_equal(
        LabelSurvey([made], places, CLASSES, 9).class_pixels, [3 * 64**2 - 2, 0]
    )


def test_a_pair_that_breaks_is_named(watched):
    labels = watched(np.ones((1, 64, 64), np.uint8), name="drawn")
    labels.broken = OSError("the disk is gone")
    with pytest.raises(UnreadablePairError, match=r"pair cells and drawn: .*the disk is gone"):
        survey(labels)


def test_only_what_changed_is_looked_at_again(painted):
    labels = painted(scattered((3, 200, 170)))
    found = survey(labels)
    labels.reads.clear()
    assert found.refresh() == []
    assert not labels.reads
    parts = []
    read = labels.read
    labels.read = lambda plane, rows, columns: (
        parts.append((plane, rows, columns)) or read(plane, rows, columns)
    )
    labels.paint(1, slice(60, 101), slice(33, 40), 2)
    labels.paint(1, slice(90, 95), slice(30, 36), 0)
    labels.paint(2, slice(0, 200), slice(168, 170), 1)
    changes = found.refresh()
    expected = [(1, slice(60, 101), slice(30, 40)), (2, slice(0, 200), slice(168, 170))]
    assert [(item.plane, item.rows, item.columns) for item in changes] == expected
    assert parts == expected
    for change in changes:
        area = change.rows, change.columns
        np.testing.assert_array_equal(change.indices, found.read(0, change.plane, *area))
    assert_looked(found, labels.array)
    assert found.refresh() == []


def test_many_strokes_leave_what_a_new_look_finds(painted):
    labels = painted(scattered((2, 150, 100)))
    found = survey(labels)
    rng = np.random.default_rng(1)
    for _ in range(30):
        for _ in range(rng.integers(0, 3)):
            top, left = rng.integers(0, 150), rng.integers(0, 100)
            rows, columns = (
                slice(int(first), int(min(size, first + rng.integers(1, 50))))
                for first, size in ((top, 150), (left, 100))
            )
            labels.paint(int(rng.integers(2)), rows, columns, int(rng.integers(3)))
        found.refresh()
        assert_looked(found, labels.array)


def test_what_is_painted_during_a_look_is_found_by_the_next(painted):
    labels = painted(np.ones((1, 64, 64), np.uint8))
    found = survey(labels)
    labels.paint(0, slice(0, 4), slice(0, 64), 2)
    read = labels.read

    def painting(*place):
        values = read(*place)
        labels.read = read
        labels.paint(0, slice(2, 9), slice(0, 64), 2)
        return values

    labels.read = painting
    found.refresh()
    found.refresh()
    assert_looked(found, labels.array)


def test_values_painted_later_without_a_class_are_ignored_and_remembered(painted):
    labels = painted(np.ones((2, 64, 64), np.uint8))
    found = survey(labels)
    assert found.unknown_values == set()
    labels.paint(0, slice(0, 4), slice(0, 64), 9)
    labels.paint(1, slice(0, 1), slice(0, 64), 7)
    (change, _) = found.refresh()
    assert (change.indices == UNLABELLED).all()
    np.testing.assert_array_equal(found.class_pixels, [2 * 64**2 - 5 * 64, 0])
    assert found.unknown_values == {7, 9}
    labels.paint(0, slice(0, 4), slice(0, 64), 1)
    found.refresh()
    assert found.unknown_values == {7, 9}


def test_stored_labels_are_not_asked_for_changes():
    labels = open_source(np.ones((3, 64, 64), np.uint8))
    found = survey(labels)
    labels.revision = None
    assert found.refresh() == []


def test_labels_that_may_change_are_given_as_they_were_looked_at(painted):
    labels = painted(np.ones((1, 64, 64), np.uint8))
    found = survey(labels)
    area = slice(0, 2), slice(0, 2)
    before = found.read(0, 0, *area)
    labels.paint(0, *area, 2)
    np.testing.assert_array_equal(found.read(0, 0, *area), before)
    found.refresh()
    assert (before == 0).all()
    assert (found.read(0, 0, *area) == 1).all()
