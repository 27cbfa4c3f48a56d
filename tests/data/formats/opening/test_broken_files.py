"""Damaged files are named, wherever the damage shows."""

import h5py
import imageio.v3 as iio
import mrcfile
import numpy as np
import pytest
import tifffile

from napari_affmae.data.checks import check_sources
from napari_affmae.data.discovery import find_pairs, find_sources
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import DataError, UnreadableFileError


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def write_broken(folder, stack):
    """Write damaged files of many kinds; return their names."""
    tifffile.imwrite(folder / "contiguous.tif", stack)
    tifffile.imwrite(folder / "compressed.tif", stack, compression="zlib", metadata=None)
    tifffile.imwrite(folder / "single.tif", stack[0], compression="zlib", metadata=None)
    tifffile.imwrite(folder / "ome.ome.tif", stack, compression="zlib", metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "imagej.tif", stack, imagej=True)
    iio.imwrite(folder / "cut.png", stack[0])
    iio.imwrite(folder / "cut.jpg", stack[0])
    mrcfile.write(folder / "cut.mrc", stack.astype(np.float32))
    with h5py.File(folder / "cut.h5", "w") as file:
        file["raw"] = stack
    names = [path.name for path in folder.iterdir()]
    for name in names:
        cut(folder / name, 0.6)
    (folder / "text.tif").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "empty.tif").touch()
    mrcfile.write(folder / "complex.mrc", stack.astype(np.complex64))
    return [*names, "text.tif", "empty.png", "empty.tif", "complex.mrc"]


def test_pretraining_names_and_skips_what_it_cannot_read(tmp_path, stack):
    names = write_broken(tmp_path, stack)
    iio.imwrite(tmp_path / "good.png", stack[0])
    found = find_sources(tmp_path)
    assert [source.name for source in found.sources] == ["good.png"]
    assert sorted(item.path.name for item in found.skipped) == sorted(names)
    for item in found.skipped:
        assert str(item.path) in item.reason
        assert len(item.reason) > len(f"cannot read {item.path}: ")


def test_pages_lost_between_two_pages(tmp_path, stack):
    """Cut where a page ends, nothing is missing from the pages that are left."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for plane in stack:
            writer.write(plane, contiguous=False, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        third = tiff.pages[3].offset
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:third])
    with pytest.raises(UnreadableFileError, match="cut short"):
        open_source(tmp_path / "a.tif")


def test_damage_in_a_late_page_names_file_and_plane(pages, stack):
    with tifffile.TiffFile(pages) as tiff:
        offset = tiff.pages[3].dataoffsets[0]
    content = bytearray(pages.read_bytes())
    content[offset : offset + 40] = b"x" * 40
    pages.write_bytes(content)
    source = open_source(pages)
    np.testing.assert_array_equal(source.read(2)[0], stack[2])
    with pytest.raises(UnreadableFileError, match=r"plane 3 of .*pages\.tif"):
        source.read(3)
    findings = check_sources([source])
    assert [finding.level for finding in findings] == ["error"]
    assert "plane 3" in findings[0].message


def test_damaged_png_is_named_when_it_is_read(tmp_path, stack):
    path = tmp_path / "a.png"
    iio.imwrite(path, stack[0])
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"a\.png"):
        open_source(path).read(0)


def test_file_that_changes_is_not_read_as_before(tmp_path, stack):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack)
    source = open_source(path)
    tifffile.imwrite(path, stack[:, :20])
    with pytest.raises(UnreadableFileError, match="changed since"):
        source.read(0)


def test_fine_tuning_names_the_pair(tmp_path, stack):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", stack)
    cut(tmp_path / "labels" / "b.tif", 0.5)
    with pytest.raises(DataError, match=r"the pair .*images.b\.tif and .*labels.b\.tif.*cut short"):
        find_pairs(tmp_path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(UnreadableFileError, match="does not exist"):
        open_source(tmp_path / "nothing.tif")
    with pytest.raises(UnreadableFileError, match="does not exist"):
        find_sources([tmp_path / "nothing.tif"])
    (tmp_path / "a.docx").touch()
    with pytest.raises(
        UnreadableFileError, match=r"no known kind; known are zarr folders and \.tif"
    ):
        open_source(tmp_path / "a.docx")
    with pytest.raises(UnreadableFileError, match="choose one of the images in it"):
        open_source(tmp_path)
