"""The index saves opening files, and never hides that one has changed."""

import logging
import os
import sqlite3

import h5py
import imageio.v3 as iio
import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile

from napari_affmae.data.discovery import find_pairs, find_sources, look_for_sources
from napari_affmae.data.formats.opening import file_index
from napari_affmae.data.formats.opening.file_index import FileIndex
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError


@pytest.fixture(autouse=True)
def index(tmp_path_factory, monkeypatch):
    """An empty index, which takes files in that were just written."""
    path = tmp_path_factory.mktemp("index") / "deep" / "files.sqlite"
    monkeypatch.setattr(file_index, "index_path", lambda: path)
    monkeypatch.setattr(file_index, "_SETTLED_NANOSECONDS", -(10**9))
    return path


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that were opened."""
    names = []
    look_into = file_index.look_into

    def noted(recipe, path):
        names.append(path.name)
        return look_into(recipe, path)

    monkeypatch.setattr(file_index, "look_into", noted)
    return names


def write_all(folder, stack):
    tifffile.imwrite(folder / "a.tif", stack, resolution=(2.5e6, 2e6), resolutionunit="CENTIMETER")
    tifffile.imwrite(folder / "b.tif", stack.astype(">f4"), metadata={"axes": "TYX"})
    mrcfile.write(folder / "c.mrc", stack, voxel_size=8)
    iio.imwrite(folder / "d.png", stack[0])


def test_known_files_are_not_opened_and_are_the_same(tmp_path, stack, opened):
    write_all(tmp_path, stack)
    first = find_sources(tmp_path).sources
    assert sorted(opened) == ["a.tif", "b.tif", "c.mrc", "d.png"]
    again = find_sources(tmp_path).sources
    assert len(opened) == 4
    for one, other in zip(first, again, strict=True):
        for name in ("name", "path", "files", "layout", "dtype", "pixel_size", "plane_distance"):
            assert getattr(one, name) == getattr(other, name), name
        assert (one.notes, one.channels) == (other.notes, other.channels)
        np.testing.assert_array_equal(one.read(0), other.read(0))
    assert again[0].pixel_size == (5.0, 4.0)
    assert again[2].plane_distance == 0.8


def test_volumes_in_one_file_are_known_too(tmp_path, stack, opened):
    np.save(tmp_path / "a.npy", np.asfortranarray(stack))
    nibabel.Nifti1Image(stack.transpose(), np.diag([4e-6, 4e-6, 4e-5, 1])).to_filename(
        tmp_path / "b.nii.gz"
    )
    first = find_sources(tmp_path).sources
    again = find_sources(tmp_path).sources
    assert sorted(opened) == ["a.npy", "b.nii.gz"]
    for one, other in zip(first, again, strict=True):
        assert (one.layout, one.pixel_size) == (other.layout, other.pixel_size)
        np.testing.assert_array_equal(other.read(4)[0], stack[4])


def test_axes_and_channels_are_those_that_are_asked_for(tmp_path, stack, opened):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    find_sources(tmp_path)
    (source,) = find_sources(tmp_path, axes="CYX", channels=3).sources
    np.testing.assert_array_equal(source.read(0)[0], stack[3])
    with pytest.raises(ValueError, match="do not fit"):
        find_sources(tmp_path, axes="YX")
    assert opened == ["a.tif"]


def test_pairs_are_known_too(tmp_path, stack, opened):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", stack)
    find_pairs(tmp_path)
    find_pairs(tmp_path)
    assert opened == ["a.tif", "a.tif"]


def test_a_file_of_the_same_size_and_time_is_not_taken_for_the_old_one(tmp_path, stack, opened):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX"})
    times, size = path.stat(), path.stat().st_size
    find_sources(tmp_path)
    tifffile.imwrite(path, stack, metadata={"axes": "CYX"})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == size
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    (source,) = find_sources(tmp_path).sources
    assert source.n_channels == 5
    assert len(opened) == 2


def test_another_file_in_its_place_is_opened(tmp_path, stack, opened):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    find_sources(tmp_path)
    (tmp_path / "a.tif").rename(tmp_path / "b.tif")
    find_sources(tmp_path)
    assert opened == ["a.tif", "b.tif"]


def test_a_file_that_was_just_written_may_be_written_again(tmp_path, stack, opened, monkeypatch):
    monkeypatch.setattr(file_index, "_SETTLED_NANOSECONDS", 10**12)
    tifffile.imwrite(tmp_path / "a.tif", stack)
    find_sources(tmp_path)
    find_sources(tmp_path)
    assert len(opened) == 2


def test_files_that_need_others_are_always_opened(tmp_path, stack, opened):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = stack
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1">'
        f'<UUID FileName="{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(2)
    )
    for number in range(2):
        xml = (
            f'<OME UUID="urn:uuid:{number}" '
            'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="56" SizeY="40" '
            f'SizeZ="2" SizeC="1" SizeT="1">{planes}</Pixels></Image></OME>'
        )
        path = tmp_path / f"{number}.ome.tif"
        tifffile.imwrite(path, stack[number], description=xml, metadata=None)
    for _ in range(2):
        opened.clear()
        assert [source.n_planes for source in find_sources(tmp_path).sources] == [2, 5]
        assert {"a.h5", "0.ome.tif"} <= set(opened)


def test_what_cannot_be_read_is_looked_at_again(tmp_path, stack, opened):
    (tmp_path / "a.tif").write_bytes(b"no image")
    assert len(find_sources(tmp_path).skipped) == 1
    assert len(find_sources(tmp_path).skipped) == 1
    assert opened == ["a.tif", "a.tif"]


def test_a_file_that_breaks_after_it_was_indexed_is_told_when_it_is_read(tmp_path, stack):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack)
    find_sources(tmp_path)
    (source,) = find_sources(tmp_path).sources
    os.truncate(path, 300)
    with pytest.raises(UnreadableFileError, match="cut short"):
        source.read(0)
    assert len(find_sources(tmp_path).skipped) == 1


@pytest.mark.parametrize("damage", ["no index", "entry", "folder"])
def test_a_damaged_index_is_told_and_files_are_opened(
    tmp_path, stack, index, opened, caplog, damage
):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    if damage == "folder":
        index.mkdir(parents=True)
    else:
        find_sources(tmp_path)
        if damage == "entry":
            with sqlite3.connect(index) as connection:
                connection.execute("UPDATE files SET facts = ?", ('{"shape": ["a"]}',))
            connection.close()
        else:
            index.write_bytes(b"no database" * 999)
    with caplog.at_level(logging.WARNING):
        (source,) = find_sources(tmp_path).sources
    assert "index" in caplog.text
    np.testing.assert_array_equal(source.read(1)[0], stack[1])
    count = len(opened)
    if damage != "folder":
        find_sources(tmp_path)  # makes it anew
        find_sources(tmp_path)
        assert len(opened) <= count + 1


def test_the_index_does_not_grow_for_ever(tmp_path, stack, index, monkeypatch):
    monkeypatch.setattr(file_index, "_MOST_ENTRIES", 3)
    for number in range(5):
        tifffile.imwrite(tmp_path / f"{number}.tif", stack)
    find_sources(tmp_path)
    with sqlite3.connect(index) as connection:
        (count,) = connection.execute("SELECT count(*) FROM files").fetchone()
    connection.close()
    assert count == 3


def test_what_was_seen_before_a_cancel_is_kept(tmp_path, stack, opened, monkeypatch):
    for number in range(30):
        tifffile.imwrite(tmp_path / f"{number:02}.tif", stack)
    monkeypatch.setattr("napari_affmae.data.looking._FIRST_SECONDS", 0.0)
    monkeypatch.setattr("napari_affmae.data.looking._SECONDS", 0.0)
    looking = look_for_sources(tmp_path)
    assert [next(looking) for _ in range(9)] == list(range(1, 10))
    looking.close()
    seen = set(opened)
    assert 9 <= len(seen) < 30
    opened.clear()
    assert len(find_sources(tmp_path).sources) == 30
    assert not seen & set(opened)


def test_processes_share_the_index(tmp_path, stack, index, opened):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    with FileIndex() as one, FileIndex() as other:
        first = open_source(tmp_path / "a.tif", index=one)
        assert open_source(tmp_path / "a.tif", index=other).layout == first.layout
    find_sources(tmp_path)
    assert opened == ["a.tif", "a.tif"]


def test_a_text_of_the_microscope_that_comes_later_is_read(tmp_path, stack, opened):
    tifffile.imwrite(tmp_path / "a.tif", stack[0])
    assert find_sources(tmp_path).sources[0].pixel_size is None
    (tmp_path / "a.txt").write_text("[SemImageFile]\nPixelSize=4.0\n")
    assert find_sources(tmp_path).sources[0].pixel_size == (4.0, 4.0)


def test_a_companion_that_comes_later_is_followed(tmp_path, stack):
    namespace = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    pointer = '<BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:a"/>'
    planes = ""
    for z in range(2):
        xml = f'<OME {namespace} UUID="urn:uuid:{z}">{pointer}</OME>'
        tifffile.imwrite(tmp_path / f"{z}.ome.tif", stack[z], description=xml, metadata=None)
        planes += (
            f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1">'
            f'<UUID FileName="{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        )
    assert [source.n_planes for source in find_sources(tmp_path).sources] == [1, 1]
    (tmp_path / "a.companion.ome").write_text(
        f'<OME {namespace} UUID="urn:uuid:a"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYZCT" Type="uint8" SizeX="56" SizeY="40" SizeZ="2" SizeC="1" SizeT="1">'
        f"{planes}</Pixels></Image></OME>"
    )
    (source,) = find_sources(tmp_path).sources
    assert source.n_planes == 2
    np.testing.assert_array_equal(source.read(1)[0], stack[1])


def test_images_and_classes_in_one_file_are_told_apart(tmp_path, opened):
    colours = np.arange(256, dtype=np.uint16) * 257
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.eye(8, dtype=np.uint8),
        photometric="palette",
        colormap=np.stack([colours, colours[::-1], colours]),
    )
    assert find_sources(tmp_path).sources[0].n_channels == 3
    assert find_sources(tmp_path, labels=True).sources[0].n_channels == 1
    assert opened == ["a.tif", "a.tif"]
