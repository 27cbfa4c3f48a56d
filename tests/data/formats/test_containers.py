from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.data.discovery import find_sources
from napari_affmae.data.formats import hdf5
from napari_affmae.data.formats.opening import open_source
from napari_affmae.errors import UnreadableFileError


def test_hdf5(tmp_path, stack, assert_reads):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw = file.create_dataset("volumes/raw", data=stack, chunks=(1, 16, 16))
        raw.attrs["element_size_um"] = [0.04, 0.005, 0.004]
        file["small"] = stack[0]
        file["words"] = "not an image"
    source = open_source(tmp_path / "a.h5")
    assert_reads(source, stack)
    assert source.pixel_size == (5.0, 4.0)
    assert source.plane_distance == 40
    assert "volumes/raw" in source.notes[0]
    small = open_source(f"{tmp_path / 'a.h5'}:/small")
    assert small.name == "a.h5:/small"
    assert_reads(small, stack[:1])
    file = hdf5.open_file(tmp_path / "a.h5", None)
    file.close()
    assert not file.array  # h5py's word for closed


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


def test_hdf5_with_links_and_one_pixel_size_for_all_axes(tmp_path, stack, assert_reads):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/data"] = stack
        file["deep/data"].attrs["element_size_um"] = 0.005
        file["raw"] = h5py.SoftLink("/deep/data")
    source = open_source(f"{tmp_path / 'a.h5'}:/raw")
    assert_reads(source, stack)
    assert source.pixel_size == (5.0, 5.0)
    assert source.plane_distance == 5


def test_ambiguous_hdf5_lists_its_datasets(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = stack
        file["label"] = stack
    with pytest.raises(UnreadableFileError, match=r"label \(5, 40, 56\), raw.*file.h5:/name"):
        open_source(tmp_path / "a.h5")
    with pytest.raises(UnreadableFileError, match=r"no image array '/nothing'; it has: label"):
        open_source(f"{tmp_path / 'a.h5'}:/nothing")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_array_and_group(tmp_path, stack, zarr_format, assert_reads):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("raw", data=stack, chunks=(1, 16, 16))
    group.create_array("more/small", data=stack[0])
    assert_reads(open_source(tmp_path / "a.zarr" / "raw"), stack)
    assert_reads(open_source(tmp_path / "a.zarr"), stack)
    assert_reads(open_source(f"{tmp_path / 'a.zarr'}:/more/small"), stack[:1])


def write_ome_zarr(path: Path, array, version: str) -> None:
    """Write two resolutions as the specification says (ngff.openmicroscopy.org)."""
    units = {"z": "micrometer", "y": "micrometer", "x": "nanometer"}
    multiscale = {
        "axes": [
            {"name": "c", "type": "channel"},
            *({"name": axis, "type": "space", "unit": unit} for axis, unit in units.items()),
        ],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 0.04, 0.0025 * 2**level, 2 * 2**level]}
                ],
            }
            for level in range(2)
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 2]}],
    }
    old = version == "0.4"
    group = zarr.open_group(path, mode="w", zarr_format=2 if old else 3)
    group.create_array("0", data=array, chunks=(1, 1, 16, 16))
    group.create_array("1", data=array[..., ::2, ::2])
    group.create_array("labels/cells/0", data=array)
    if old:
        group.attrs["multiscales"] = [{**multiscale, "version": version}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version, assert_reads):
    array = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 40), dtype=np.uint8)
    write_ome_zarr(tmp_path / "a.zarr", array, version)
    source = open_source(tmp_path / "a.zarr")
    assert source.n_channels == 2
    assert source.pixel_size == pytest.approx((5.0, 4.0))
    assert source.plane_distance == pytest.approx(40)
    assert_reads(source, np.moveaxis(array, 0, -1))


@pytest.mark.parametrize(
    ("axes", "dataset", "reason"),
    [("yx", "0", "name the axes"), ("zyy", "0", "name the axes"), ("zyx", "9", "'9', where no")],
)
def test_ome_zarr_whose_metadata_do_not_fit_is_named_and_left_out(
    tmp_path, stack, axes, dataset, reason
):
    group = zarr.open_group(tmp_path / "odd.zarr", mode="w")
    group.create_array("0", data=stack)
    named = [{"name": axis, "type": "space"} for axis in axes]
    group.attrs["ome"] = {"multiscales": [{"axes": named, "datasets": [{"path": dataset}]}]}
    tifffile.imwrite(tmp_path / "good.tif", stack)
    found = find_sources(tmp_path)
    assert [source.name for source in found.sources] == ["good.tif"]
    assert "odd.zarr" in found.skipped[0].reason
    assert reason in found.skipped[0].reason
