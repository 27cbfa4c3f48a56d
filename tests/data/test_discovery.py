import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.data.discovery import find_pairs, find_sources
from napari_affmae.data.formats.tiff import reader as tiff
from napari_affmae.errors import DataError


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array)


def test_folders_are_walked_in_the_order_of_names(tmp_path, stack):
    write(tmp_path / "b" / "deep" / "x.tif", stack)
    write(tmp_path / "b" / "a.TIFF", stack)
    iio.imwrite(tmp_path / "c.png", stack[0])
    zarr.save_array(tmp_path / "a.zarr", stack)
    write(tmp_path / ".hidden" / "x.tif", stack)
    (tmp_path / "readme.txt").write_text("no image, and no complaint")
    found = find_sources(tmp_path)
    assert [s.name for s in found.sources] == ["a.zarr", "b/a.TIFF", "b/deep/x.tif", "c.png"]
    assert [s.n_planes for s in found.sources] == [5, 5, 5, 1]
    assert found.skipped == []


def test_files_and_folders_together(tmp_path, stack):
    write(tmp_path / "a.tif", stack)
    write(tmp_path / "f" / "b.tif", stack)
    found = find_sources([tmp_path / "f", tmp_path / "a.tif"], axes="CYX", channels=[0, 4])
    assert [s.name for s in found.sources] == ["b.tif", "a.tif"]
    assert all(s.n_channels == 2 for s in found.sources)


def test_every_file_is_opened_once_and_no_pixel_is_read(tmp_path, stack, monkeypatch):
    for number in range(40):
        tifffile.imwrite(tmp_path / f"{number:02d}.tif", stack, compression="zlib")
    opened = []
    open_file = tiff.open_file
    monkeypatch.setattr(
        tiff, "open_file", lambda path, **options: opened.append(path) or open_file(path, **options)
    )
    monkeypatch.setattr(tifffile.TiffPage, "decode", None)
    sources = find_sources(tmp_path).sources
    assert sorted(opened) == [source.path for source in sources]
    assert len(opened) == 40


def test_axes_that_do_not_fit_name_the_file(tmp_path, stack):
    write(tmp_path / "a.tif", stack[0])
    with pytest.raises(ValueError, match=r"'ZYX' do not fit a\.tif of shape \(40, 56\)"):
        find_sources(tmp_path, axes="ZYX")


def test_labels_beside_images_are_not_images(tmp_path, stack):
    for folder in ("images", "labels"):
        write(tmp_path / "set" / folder / "a.tif", stack)
    found = find_sources(tmp_path)
    assert [s.name for s in found.sources] == ["set/images/a.tif"]
    assert [item.path.name for item in found.skipped] == ["labels"]


@pytest.mark.parametrize("run", ["run1", "."])
def test_pictures_of_runs_are_not_images(tmp_path, stack, run):
    write(tmp_path / "a.tif", stack)
    write(tmp_path / run / "previews" / "step_00000001.tif", stack)
    (tmp_path / run / "run.json").touch()
    found = find_sources(tmp_path)
    assert [s.name for s in found.sources] == ["a.tif"]
    assert [item.path.name for item in found.skipped] == ["previews" if run == "." else run]
    assert len(find_sources(tmp_path / run / "previews").sources) == 1


def test_a_link_to_a_folder_above_gives_no_image_twice(tmp_path, stack):
    write(tmp_path / "a.tif", stack)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = find_sources(tmp_path)
    assert [s.name for s in found.sources] == ["a.tif"]
    assert [item.path.name for item in found.skipped] == ["loop"]


def test_pairs_by_names_whatever_their_kind(tmp_path, stack):
    write(tmp_path / "images" / "a.ome.tif", stack[0])
    write(tmp_path / "images" / "deep" / "b.tif", stack[1])
    (tmp_path / "labels" / "deep").mkdir(parents=True)
    iio.imwrite(tmp_path / "labels" / "a.png", stack[0])
    iio.imwrite(tmp_path / "labels" / "deep" / "b.png", stack[1])
    for pairs in (find_pairs(tmp_path), find_pairs(tmp_path / "images", tmp_path / "labels")):
        assert [image.name for image, _ in pairs] == ["a", "deep/b"]
        for image, labels in pairs:
            np.testing.assert_array_equal(image.read(0), labels.read(0))


def test_a_single_pair_needs_no_equal_names(tmp_path, stack):
    write(tmp_path / "em.tif", stack)
    write(tmp_path / "truth.tif", stack)
    ((image, labels),) = find_pairs(tmp_path / "em.tif", tmp_path / "truth.tif")
    assert image.path.name == "em.tif"
    assert labels.path.name == "truth.tif"


def test_labels_have_no_channel_axis(tmp_path):
    write(tmp_path / "images" / "a.tif", np.zeros((2, 8, 9), np.uint16))
    write(tmp_path / "labels" / "a.tif", np.zeros((8, 9), np.uint8))
    ((image, labels),) = find_pairs(tmp_path, axes="CYX", channels=1)
    assert image.n_channels == labels.n_channels == 1
    assert labels.n_planes == 1


def test_names_of_arrays_inside_files(tmp_path, stack):
    for name in ("a", "b"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["raw"] = stack
            file["label"] = stack
    images = [f"{tmp_path / name}.h5:/raw" for name in ("a", "b")]
    labels = [f"{tmp_path / name}.h5:/label" for name in ("a", "b")]
    assert [s.name for s in find_sources(images).sources] == ["a.h5:/raw", "b.h5:/raw"]
    assert [image.name for image, _ in find_pairs(images, labels)] == ["a", "b"]


def test_files_without_partner_are_named(tmp_path, stack):
    for name in ("a", "b"):
        write(tmp_path / "images" / f"{name}.tif", stack)
    write(tmp_path / "labels" / "a.tif", stack)
    write(tmp_path / "labels" / "c.tif", stack)
    with pytest.raises(DataError, match=r"1 images without labels.*b\.tif"):
        find_pairs(tmp_path)
    write(tmp_path / "labels" / "b.tif", stack)
    with pytest.raises(DataError, match=r"1 label images without images.*c\.tif"):
        find_pairs(tmp_path)


def test_pairs_that_cannot_be_told_apart_or_are_not_there(tmp_path, stack):
    write(tmp_path / "images" / "a.tif", stack)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="no label image found"):
        find_pairs(tmp_path)
    write(tmp_path / "labels" / "a.tif", stack)
    write(tmp_path / "labels" / "a.tiff", stack)
    with pytest.raises(DataError, match="two label images have the same name"):
        find_pairs(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        find_pairs(tmp_path, tmp_path / "nothing")
    with pytest.raises(ValueError, match="one folder with images"):
        find_pairs([tmp_path / "images"])
