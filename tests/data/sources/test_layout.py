import numpy as np
import pytest

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.sources.layout import Layout, axes_of_planes, default_axes, parse_axes


@pytest.mark.parametrize(
    ("shape", "dtype", "axes"),
    [
        ((40, 50), np.uint8, "YX"),
        ((7, 40, 50), np.uint16, "IYX"),
        ((2, 7, 40, 50), np.uint8, "IIYX"),
        ((40, 50, 3), np.uint8, "YXS"),
        ((7, 40, 50, 4), np.uint8, "IYXS"),
        ((7, 40, 50, 1), np.uint16, "IYXS"),
        ((40, 50, 1), np.float32, "YXS"),
        ((7, 40, 3), np.uint16, "IYX"),
        ((40, 3), np.uint8, "YX"),
    ],
)
def test_default_axes(shape, dtype, axes):
    assert default_axes(shape, dtype) == axes


@pytest.mark.parametrize(
    ("shape", "axes", "wanted"),
    [
        ((12, 40, 50), "CYX", "ZYX"),
        ((40, 50, 12), "YXS", "YXZ"),
        ((1, 1, 12, 40, 50), "TZCYX", "TCZYX"),
        ((1, 1, 40, 50, 12), "ZCYXS", "SCYXZ"),
        ((3, 40, 50), "CYX", None),
        ((40, 50, 4), "YXS", None),
        ((12, 40, 50), "ZYX", None),
        ((2, 12, 40, 50), "ZCYX", None),
    ],
)
def test_many_channels_of_one_plane_may_be_planes(shape, axes, wanted):
    assert axes_of_planes(Layout(shape, axes)) == wanted


@pytest.mark.parametrize(
    ("axes", "complaint"),
    [("ZYX", "do not fit"), ("YY", "twice"), ("ZX", "must contain Y"), ("Y1", "do not fit")],
)
def test_axes_that_do_not_fit_are_refused(axes, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_axes(axes, (5, 6), "a.tif")


def test_one_axis_is_no_image():
    with pytest.raises(ValueError, match="at least two axes"):
        open_source(np.zeros(9))


def test_empty_array_is_refused():
    with pytest.raises(ValueError, match="empty"):
        open_source(np.zeros((0, 9, 9)))


@pytest.mark.parametrize("axes", ["TCYX", "CTYX", "YXTC", "YCXT"])
def test_planes_and_channels_of_any_order(axes):
    rng = np.random.default_rng(0)
    canonical = rng.integers(0, 99, (2, 3, 5, 7))  # T, C, Y, X
    array = canonical.transpose(["TCYX".index(axis) for axis in axes])
    source = open_source(array, axes=axes)
    assert (source.n_planes, source.n_channels, source.height, source.width) == (2, 3, 5, 7)
    for plane in range(2):
        np.testing.assert_array_equal(source.read(plane), canonical[plane])
        part = source.read(plane, slice(1, 4), slice(2, 3))
        np.testing.assert_array_equal(part, canonical[plane, :, 1:4, 2:3])


def test_two_channel_axes_are_flattened():
    array = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    source = open_source(array, axes="CYXS")
    assert source.n_channels == 6
    np.testing.assert_array_equal(source.read(0)[4], array[1, :, :, 1])


def test_last_plane_axis_runs_fastest():
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    source = open_source(array, axes="TZYX")
    assert source.plane_shape == (2, 3)
    np.testing.assert_array_equal(source.read(4)[0], array[1, 1])


@pytest.mark.parametrize("channels", [1, [2, 0], (1, 3)])
def test_channels_are_chosen_in_order(channels):
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    source = open_source(array, axes="CYX", channels=channels)
    np.testing.assert_array_equal(source.read(0), array[np.atleast_1d(channels)])


def test_only_the_chosen_channels_are_read():
    index = Layout((9, 5, 6), "CYX").index(0, slice(0, 5), slice(0, 6), (4, 3))
    assert index[0] == slice(3, 5)


@pytest.mark.parametrize("channels", [[], 4, [-1], [0, 9]])
def test_channels_that_are_not_there_are_refused(channels):
    with pytest.raises(ValueError, match="has channels 0 to 3"):
        open_source(np.zeros((4, 5, 6)), axes="CYX", channels=channels)
