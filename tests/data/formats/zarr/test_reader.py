"""Zarr arrays and groups, and OME-Zarr of all its versions."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.data.discovery import find_sources
from napari_affmae.data.formats.opening.source import open_source


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
