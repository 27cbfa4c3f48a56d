"""OME-Zarr and zarr as other programs write them: several images, groups in groups, one file."""

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_affmae.data.discovery import find_pairs, find_sources
from napari_affmae.data.formats.files import pieces
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError


def make_image(group, array, *, version="0.4", axes="tczyx", names=("0", "1")):
    """Make a group an OME-Zarr image of two resolutions, with steps of 50, 4, 3 nm."""
    kinds = {"t": {"type": "time"}, "c": {"type": "channel"}}
    space = {"type": "space", "unit": "nanometer"}
    steps = {"t": 1, "c": 1, "z": 50, "y": 4, "x": 3}
    datasets = []
    for level, name in enumerate(names):
        group.create_array(name, data=array[..., :: level + 1, :: level + 1])
        scale = [steps[axis] * (level + 1 if axis in "yx" else 1) for axis in axes]
        datasets.append(
            {"path": name, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    described = [{"name": axis, **kinds.get(axis, space)} for axis in axes]
    image = {"multiscales": [{"version": version, "axes": described, "datasets": datasets}]}
    group.attrs.update(image if version == "0.4" else {"ome": {"version": version, **image}})


def bioformats2raw(path, arrays, *, version="0.4", listed=True):
    """Write several images as bioformats2raw does, with a file that zarr does not know."""
    root = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update(layout if version == "0.4" else {"ome": {"version": version, **layout}})
    series = {"series": [str(number) for number in range(len(arrays))]}
    if listed:
        group = root.create_group("OME")
        group.attrs.update(series if version == "0.4" else {"ome": {"version": version, **series}})
        (path / "OME" / "METADATA.ome.xml").write_text("<OME/>")
    for number, array in enumerate(arrays):
        make_image(root.create_group(str(number)), array[None, None], version=version)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("listed", [True, False])
def test_bioformats2raw(tmp_path, stack, version, listed, assert_reads):
    path = bioformats2raw(tmp_path / "a.zarr", [stack], version=version, listed=listed)
    source = open_source(path)
    assert_reads(source, stack)
    assert source.pixel_size == (4, 3)
    assert source.plane_distance == 50
    assert not source.notes


def test_one_of_several_images(tmp_path, stack, assert_reads):
    path = bioformats2raw(tmp_path / "a.zarr", [stack, 255 - stack])
    source = open_source(path)
    assert_reads(source, stack)
    assert source.notes == ("holds 2 images: 0, 1; the first is used",)
    other = open_source(f"{path}:/1")
    assert_reads(other, 255 - stack)
    assert other.plane_distance == 50
    low = open_source(f"{path}:/1/1")
    assert low.pixel_size == (8, 6)
    assert low.n_planes == 5
    with pytest.raises(UnreadableFileError, match=r"no image array '/2'; it has: 0/0 .*1/1 "):
        open_source(f"{path}:/2")


def test_images_deep_in_groups(tmp_path, stack, assert_reads):
    path = tmp_path / "a.zarr"
    root = zarr.open_group(path, mode="w")
    make_image(
        root.create_group("recon/em"), stack, version="0.5", axes="zyx", names=("s0", "deep/s1")
    )
    source = open_source(path)
    assert_reads(source, stack)
    assert source.pixel_size == (4, 3)
    assert "recon/em/s0" in source.notes[0]
    assert_reads(open_source(f"{path}:/recon/em"), stack)
    assert open_source(f"{path}:/recon/em/deep/s1").pixel_size == (8, 6)


def test_other_files_and_links_that_go_round_are_passed_by(tmp_path, stack, assert_reads):
    path = tmp_path / "a.zarr"
    root = zarr.open_group(path, mode="w")
    root.create_array("raw", data=stack)
    (path / "notes.txt").write_text("who made it")
    (path / "pictures").mkdir()
    (path / "round").symlink_to(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableFileError, match="several arrays of the largest size"):
            open_source(path)
        (path / "round").unlink()
        assert_reads(open_source(path), stack)


def packed(path, folder, *, top="", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path(top) / file.relative_to(folder))
    return path


@pytest.mark.parametrize("name", ["a.zarr.zip", "a.ozx", "A.OZX"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("top", ["", "a.zarr"])
def test_one_file(tmp_path, stack, name, version, top, assert_reads):
    root = zarr.open_group(tmp_path / "loose", mode="w", zarr_format=2 if version == "0.4" else 3)
    make_image(root, stack, version=version, axes="zyx")
    compression = zipfile.ZIP_DEFLATED if top else zipfile.ZIP_STORED
    path = packed(tmp_path / name, tmp_path / "loose", top=top, compression=compression)
    source = open_source(path)
    assert_reads(source, stack)
    assert source.pixel_size == (4, 3)
    assert source.plane_distance == 50
    assert open_source(f"{path}:/1").pixel_size == (8, 6)
    source.close()
    assert_reads(source, stack)


def test_groups_and_arrays_in_one_file(tmp_path, stack, assert_reads):
    bioformats2raw(tmp_path / "many", [stack, stack // 2])
    source = open_source(packed(tmp_path / "many.zarr.zip", tmp_path / "many"))
    assert_reads(source, stack)
    assert "holds 2 images" in source.notes[0]
    zarr.create_array(tmp_path / "array", data=stack, chunks=(1, 20, 20), shards=(1, 40, 60))
    assert_reads(open_source(packed(tmp_path / "b.ozx", tmp_path / "array")), stack)
    root = zarr.open_group(tmp_path / "group", mode="w")
    root.create_array("raw", data=stack)
    root.create_array("label", data=stack % 2)
    path = packed(tmp_path / "c.zarr.zip", tmp_path / "group")
    with pytest.raises(UnreadableFileError, match=r"label \(5, 40, 56\), raw"):
        open_source(path)
    ((image, labels),) = find_pairs(f"{path}:/raw", f"{path}:/label")
    assert_reads(image, stack)
    assert_reads(labels, stack % 2)


def test_damaged_archives(tmp_path, stack):
    zarr.create_array(tmp_path / "array", data=stack)
    path = packed(tmp_path / "a.zarr.zip", tmp_path / "array")
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(UnreadableFileError, match=r"a\.zarr\.zip"):
        open_source(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "nothing")
    with pytest.raises(UnreadableFileError, match="no zarr array or group"):
        open_source(path)
    found = find_sources(tmp_path)
    assert [skipped.path.name for skipped in found.skipped] == ["a.zarr.zip"]


def test_archives_that_claim_or_unpack_to_more_than_the_memory(tmp_path, stack, monkeypatch):
    zarr.create_array(tmp_path / "array", data=stack, compressors=None)
    path = packed(tmp_path / "a.zarr.zip", tmp_path / "array", compression=zipfile.ZIP_DEFLATED)
    source = open_source(path)
    source.close()
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        name = next(name for name in archive.namelist() if name.startswith("c/"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, bytes(2_000_000))
    monkeypatch.setattr(pieces, "largest_piece", lambda: 1_000_000)
    with pytest.raises(UnreadableFileError, match=r"its part c/.* takes"):
        source.read(0)
    metadata = json.loads((tmp_path / "array" / "zarr.json").read_text())
    metadata["shape"] = [2_000_000, 2_000_000, 9]
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = metadata["shape"]
    (tmp_path / "array" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(UnreadableFileError, match="each of its chunks"):
        open_source(packed(tmp_path / "b.ozx", tmp_path / "array"))


def test_what_is_not_stored_in_a_file_is_empty(tmp_path, stack, assert_reads):
    array = np.where(np.arange(5)[:, None, None] == 2, stack, 0).astype(np.uint8)
    zarr.create_array(tmp_path / "array", data=array, chunks=(1, 40, 56))
    assert_reads(open_source(packed(tmp_path / "a.ozx", tmp_path / "array")), array)
