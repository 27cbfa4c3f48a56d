"""Axes and sizes by attributes of HDF5 datasets and zarr arrays."""

import json

import h5py
import numpy as np
import pytest
import zarr

from napari_affmae.data.formats.metadata.attributes import axes_of, voxel_size_of
from napari_affmae.data.formats.opening.source import open_source


def tags(axes):
    return json.dumps({"axes": [{"key": axis, "typeFlags": 2, "resolution": 0} for axis in axes]})


@pytest.mark.parametrize(
    "axes", ["zyxc", "tzyxc", "zcyx", "czyx", "xyz", "xyzc", "tzcyx", "zxyc", "yxc"]
)
@pytest.mark.parametrize("kind", ["h5", "zarr2", "zarr3"])
def test_axistags(tmp_path, stack, axes, kind, assert_reads):
    """The letters of any order; planes are those of the stack, or its first."""
    wanted = stack if "z" in axes else stack[:1]
    present = {"t": 1, "c": 1, "z": 5, "y": 40, "x": 56}
    order = [axis for axis in "tczyx" if axis in axes]
    array = wanted.reshape([present[axis] for axis in order])
    array = array.transpose([order.index(axis) for axis in axes])
    if kind == "h5":
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("exported_data", data=array).attrs["axistags"] = tags(axes)
    else:
        path = tmp_path / "a.zarr"
        created = zarr.create_array(path, data=array, zarr_format=int(kind[-1]))
        created.attrs["axistags"] = json.loads(tags(axes)) if kind == "zarr2" else tags(axes)
    assert_reads(open_source(path), wanted)


@pytest.mark.parametrize(
    "attributes",
    [
        {"_ARRAY_DIMENSIONS": ["z", "channel", "y", "x"]},
        {"axis_names": ["z", "c", "y", "x"]},
        {"axes": ["z", "c", "y", "x"]},
        {"axes": np.array([b"z", b"c", b"y", b"x"])},
        {"axistags": tags("zcyx").encode()},
        {"axistags": json.loads(tags("zcyx"))},
    ],
    ids=str,
)
def test_names_of_axes(attributes):
    assert axes_of(attributes, (2, 3, 4, 5)) == "ZCYX"
    assert axes_of(attributes, (3, 4, 5)) is None


@pytest.mark.parametrize("value", ["{", "[]", 7, b"\xff", {"axes": 3}, {"axes": [3]}, ["z"], ""])
def test_axes_that_are_not_named_are_unknown(value):
    attributes = {"axistags": value if not isinstance(value, dict) else json.dumps(value)}
    assert axes_of(attributes, (4, 5)) is None


@pytest.mark.parametrize(
    ("attributes", "axes", "size"),
    [
        ({"resolution": [40.0, 4, 3]}, None, (40, 4, 3)),
        ({"resolution": np.array([40, 4, 3])}, "ZYX", (40, 4, 3)),
        ({"resolution": [4, 0.4, 0.3], "units": "um"}, None, (4000, 400, 300)),
        ({"resolution": [40, 4, 3], "units": "angstrom"}, None, (4, 0.4, 0.3)),
        ({"resolution": [40, 4, 3], "units": ["nm", "nm", "nm"]}, None, (40, 4, 3)),
        ({"element_size_um": [0.04, 0.004, 0.003]}, None, (40, 4, 3)),
        ({"element_size_um": [0.04, 0.004, 0.003]}, "ZYXC", (40, 4, 3)),
        ({"element_size_um": [0.004, 0.003]}, None, (None, 4, 3)),
        ({"element_size_um": 0.004}, None, (4, 4, 4)),
        ({"voxel_size": (40, 4, 3)}, None, (40, 4, 3)),
        ({"voxelSize": [0.04, 0.004, 0.003], "voxelUnit": "micron"}, None, (40, 4, 3)),
        ({"voxel_size_nm": [40, 4, 3]}, "CZYX", (40, 4, 3)),
        ({"pixelSize": 4.0, "pixelSizeUnit": b"nm"}, None, (None, 4, 4)),
        ({"pixel_size": [4, 3], "pixel_unit": "nm"}, "IYX", (None, 4, 3)),
        ({"pixelResolution": {"dimensions": [3, 4, 40], "unit": "nm"}}, None, (40, 4, 3)),
        ({"pixelResolution": '{"dimensions": [3, 4, 40], "unit": "nm"}'}, None, (40, 4, 3)),
        ({"voxel_size": [3, 4, 40]}, "XYZ", (40, 4, 3)),
        ({"voxel_size": [1, 40, 4, 3], "unit": "nm"}, "CZYX", (40, 4, 3)),
    ],
    ids=str,
)
def test_sizes(attributes, axes, size):
    assert voxel_size_of([{}, attributes], axes) == size


@pytest.mark.parametrize(
    "attributes",
    [
        {"resolution": [1, 1, 1]},
        {"resolution": [4e-9, 4e-9, 4e-9]},
        {"resolution": [0, 0, 0]},
        {"resolution": [1, 1, 1], "unit": "mm"},
        {"resolution": "high"},
        {"resolution": h5py.Empty("f4")},
        {"resolution": []},
        {"resolution_level": [40, 4, 3]},
        {"voxel_size": [40, 4, 3], "unit": "pixel"},
        {"pixelResolution": "nothing"},
        {"pixelResolution": [4, 4]},
        {"voxel_size": {"x": 4}},
        {},
    ],
    ids=str,
)
def test_what_is_no_size_is_unknown(attributes):
    assert voxel_size_of([attributes], None) == (None, None, None)


def test_sizes_of_groups_and_of_zarr(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/raw"] = stack
        file["volumes/labels"] = stack[0]
        file.attrs["voxel_size"] = [50, 5, 6]
        file["volumes"].attrs["resolution"] = [40, 4, 3]
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("volumes/raw", data=stack).attrs["resolution"] = [40, 4, 3]
    for path in (tmp_path / "a.h5", tmp_path / "a.zarr"):
        source = open_source(path)
        assert (source.plane_distance, source.pixel_size) == (40, (4, 3))


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        (("c", "y", "x"), 5),
        (("channel", "Y", "X"), 5),
        (("yaw", "y", "x"), 1),
        (("a", "b", "c"), 1),
        (("z", "y", "y"), 1),
    ],
)
def test_axes_by_the_names_of_dimensions(tmp_path, stack, names, channels):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("raw", data=stack)
        for axis, label in enumerate(names):
            data.dims[axis].label = label
    zarr.create_array(tmp_path / "a.zarr", data=stack, dimension_names=names)
    for path in (tmp_path / "a.h5", tmp_path / "a.zarr"):
        assert open_source(path).n_channels == channels
