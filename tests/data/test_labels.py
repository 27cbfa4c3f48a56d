import numpy as np
import pytest

from napari_affmae.config import (
    IGNORE_INDEX,
    LabelClass,
    NormalizationConfig,
)
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.label_values import count_values, labelled_planes
from napari_affmae.data.labels import (
    LabelEncoder,
    LabelledPair,
    default_classes,
    read_labels,
)
from napari_affmae.data.normalization.normalization import normalize_sources
from napari_affmae.errors import DataError


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
    with pytest.raises(DataError, match=r"has 5 channels.*not colours"):
        LabelledPair(
            pair(image, np.zeros((70, 80), np.uint8)).image,
            open_source(np.zeros((70, 80, 5), np.uint8), axes="YXC"),
        )
    with pytest.raises(DataError, match=r"\(1, 70, 80\), its labels labels have \(1, 80, 70\)"):
        pair(image, np.zeros((80, 70), np.uint8))


@pytest.mark.parametrize("n_channels", [2, 3, 4])
def test_labels_that_were_saved_in_grey_colours(n_channels):
    mask = checkerboard(1, 60, 80)[0] * np.uint8(255)
    colours = np.repeat(mask[..., None], n_channels, axis=-1)
    if n_channels in (2, 4):
        colours[..., -1] = 255  # alpha
    labels = open_source(colours, axes="YXC", name="a")
    np.testing.assert_array_equal(read_labels(labels, 0), mask)
    assert count_values(labels) == {0: 2400, 255: 2400}
    assert labelled_planes(labels, 255) == [0]
    for channel in {n_channels - 1, min(2, n_channels - 1)}:
        coloured = colours.copy()
        coloured[5, 5, channel] = 7
        with pytest.raises(DataError, match=rf"a has {n_channels} channels.*not colours"):
            read_labels(open_source(coloured, axes="YXC", name="a"), 0)


@pytest.mark.parametrize("values", [np.uint64([[2**64 - 3, 0]]), np.float64([[1e30, 0]])])
def test_values_that_are_too_large_are_shown_as_they_are(values):
    with pytest.raises(DataError, match=f"the value {int(values[0, 0])}, "):
        read_labels(open_source(values, name="ids"), 0)
    small = np.uint64([[2**63 - 1, 0]])
    assert read_labels(open_source(small), 0).tolist() == small.tolist()


def test_planes_that_hold_labels():
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[1, 3, 3] = labels[3, 0, 0] = 2
    assert labelled_planes(open_source(labels, axes="ZYX"), 0) == [1, 3]
    assert labelled_planes(open_source(labels, axes="ZYX"), None) == [0, 1, 2, 3]
