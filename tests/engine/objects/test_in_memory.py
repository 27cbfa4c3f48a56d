import numpy as np
import pytest

from napari_affmae.engine import label_objects, measure_objects

OFF = {"three_d": False, "min_size": 0, "separation": 0.0}


def disc(shape, centre, radius):
    grid = np.ogrid[tuple(slice(size) for size in shape)]
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


def two_discs(shape=(40, 70)):
    """Discs of radius 15 that overlap in a neck about 14 pixels wide."""
    return disc(shape, (20, 18), 15) | disc(shape, (20, 45), 15)


def test_every_component_gets_a_number():
    classes = np.zeros((30, 40), np.uint8)
    classes[2:8, 2:8] = 2
    classes[10:20, 20:30] = 2
    classes[25:28, 1:4] = 1
    objects = label_objects(classes, 2, **OFF)
    assert objects.dtype == np.int32
    np.testing.assert_array_equal(objects > 0, classes == 2)
    assert set(np.unique(objects[classes == 2])) == {1, 2}
    assert len(np.unique(objects[2:8, 2:8])) == 1


def test_corners_do_not_join():
    objects = label_objects(np.eye(3, dtype=int), 1, **OFF)
    assert sorted(objects[objects > 0]) == [1, 2, 3]


def test_planes_are_apart_unless_objects_are_three_dimensional():
    classes = np.zeros((3, 10, 10), np.uint8)
    classes[:, 2:5, 2:5] = 1
    classes[2, 7:9, 7:9] = 1
    flat = label_objects(classes, 1, **OFF)
    assert [len(np.unique(plane)) - 1 for plane in flat] == [1, 1, 2]
    assert set(np.unique(flat)) == {0, 1, 2, 3, 4}
    solid = label_objects(classes, 1, three_d=True, min_size=0, separation=0)
    assert solid.max() == 2
    assert len(np.unique(solid[:, 3, 3])) == 1


def test_small_objects_are_dropped_and_numbers_stay_consecutive():
    classes = np.zeros((20, 20), np.uint8)
    classes[0, 0:4] = 1
    classes[5:10, 5:10] = 1
    classes[15, 15] = 1
    classes[12:18, 0:3] = 1
    objects = label_objects(classes, 1, three_d=False, min_size=5, separation=0)
    assert set(np.unique(objects)) == {0, 1, 2}
    assert np.bincount(objects.ravel())[1:].tolist() == [25, 18]


def test_objects_never_join_two_classes():
    classes = np.zeros((10, 20), np.uint8)
    classes[2:8, 2:10], classes[2:8, 10:18] = 4, 1
    objects = label_objects(classes, np.unique(classes)[1:], **OFF)
    assert objects.max() == 2
    assert set(objects[classes == 4]) == {1}
    assert set(objects[classes == 1]) == {2}


@pytest.mark.parametrize(("separation", "count"), [(0.0, 1), (1.0, 2), (4.0, 2), (12.0, 1)])
def test_touching_objects_are_cut_at_their_neck(separation, count):
    mask = two_discs()
    objects = label_objects(
        mask.astype(np.uint8), 1, three_d=False, min_size=0, separation=separation
    )
    assert objects.max() == count
    np.testing.assert_array_equal(objects > 0, mask)
    if count == 2:
        assert objects[20, 18] != objects[20, 45]
        sizes = np.bincount(objects.ravel())[1:]
        assert abs(int(sizes[0]) - int(sizes[1])) < 0.1 * sizes.sum()


def test_spheres_are_cut_in_three_dimensions():
    shape = (30, 30, 50)
    mask = disc(shape, (15, 15, 14), 11) | disc(shape, (15, 15, 34), 11)
    objects = label_objects(mask.astype(np.uint8), 1, three_d=True, min_size=0, separation=2)
    assert objects.max() == 2
    np.testing.assert_array_equal(objects > 0, mask)


def test_thin_objects_stay_beside_thick_ones():
    """An object that is thinner than the separation is neither lost nor joined to another."""
    mask = two_discs((60, 70))
    mask[50:53, 5:60] = True
    mask[56, 5:9] = True
    objects = label_objects(mask.astype(np.uint8), 1, three_d=False, min_size=0, separation=4)
    np.testing.assert_array_equal(objects > 0, mask)
    assert objects.max() == 4
    assert len(np.unique(objects[51, 5:60])) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 5, 5), (0, 4)])
def test_nothing_is_found_in_nothing(shape):
    for separation in (0.0, 2.0):
        objects = label_objects(
            np.zeros(shape, np.uint8), 1, three_d=True, min_size=3, separation=separation
        )
        assert objects.shape == shape
        assert not objects.any()
        assert len(measure_objects(objects)["label"]) == 0


@pytest.mark.parametrize(
    ("classes", "settings", "error", "message"),
    [
        (np.zeros((4, 4)), OFF, TypeError, "integers, got float64"),
        (np.zeros(4, int), OFF, ValueError, r"shape \(4,\)"),
        (np.zeros((4, 4), int), {**OFF, "min_size": -1}, ValueError, "at least 0"),
        (np.zeros((4, 4), int), {**OFF, "separation": -0.5}, ValueError, "at least 0"),
    ],
)
def test_arguments_that_are_refused(classes, settings, error, message):
    with pytest.raises(error, match=message):
        label_objects(classes, 1, **settings)


def test_measures():
    classes = np.zeros((2, 10, 12), np.uint8)
    classes[0, 2:4, 3:7], classes[1, 0:5, 0:3] = 3, 1
    objects = label_objects(classes, [1, 3], **OFF)
    table = measure_objects(objects, (4.0, 5.0), "nm", classes)
    assert table["label"].tolist() == [1, 2]
    assert table["class"].tolist() == [3, 1]
    assert table["plane"].tolist() == [0, 1]
    assert table["row"].tolist() == [2.5, 2]
    assert table["column"].tolist() == [4.5, 1]
    assert table["size_px"].tolist() == [8, 15]
    assert table["area_nm2"].tolist() == [160, 300]


def test_measures_of_volumes_and_of_numbers_with_gaps():
    objects = np.zeros((4, 6, 6), np.int32)
    objects[1:3, 0:2, 4:6] = 9
    table = measure_objects(objects, (2.0, 1.0, 0.5), "um")
    assert table["label"].tolist() == [9]
    assert (table["plane"][0], table["row"][0], table["column"][0]) == (1.5, 0.5, 4.5)
    assert table["volume_um3"].tolist() == [8]
    assert "class" not in table
    flat = measure_objects(objects[1])
    assert flat["plane"].tolist() == [0]
    assert "area_nm2" not in flat


def test_measures_that_are_refused():
    objects = np.zeros((4, 6), np.int32)
    with pytest.raises(ValueError, match="1 numbers"):
        measure_objects(objects, (1.0,))
    with pytest.raises(ValueError, match="classes have shape"):
        measure_objects(objects, classes=objects[:2])
    with pytest.raises(ValueError, match="objects must be"):
        measure_objects(objects[0])


@pytest.mark.parametrize("three_d", [False, True])
def test_objects_that_touch_at_a_corner_stay_apart_when_others_are_cut(three_d):
    classes = (np.random.default_rng(0).random((4, 40, 40)) < 0.3).astype(np.uint8)
    options = {"three_d": three_d, "min_size": 0}
    whole = label_objects(classes, 1, separation=0.0, **options)
    cut = label_objects(classes, 1, separation=1.0, **options)
    inside = classes > 0
    pairs = set(zip(whole[inside].tolist(), cut[inside].tolist(), strict=True))
    assert len(pairs) == cut.max() >= whole.max()
