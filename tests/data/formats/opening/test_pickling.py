"""Sources travel to other processes, which open the files themselves."""

import gc
import pickle

import h5py
import imageio.v3 as iio
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.config import NormalizationConfig
from napari_affmae.data import normalize_sources, window
from napari_affmae.data.formats.files.handles import POOL
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError


def write_hdf5(path, array):
    with h5py.File(path, "w") as file:
        file["a/raw"] = array
        file["b"] = array


WRITERS = {
    "a.tif": tifffile.imwrite,
    "b.tif": lambda path, array: tifffile.imwrite(path, array, compression="zlib"),
    "a.png": lambda path, array: iio.imwrite(path, array[0]),
    "a.jpg": lambda path, array: iio.imwrite(path, array[0]),
    "a.mrc": lambda path, array: mrcfile.write(path, array.astype(np.uint16)),
    "a.h5:/a/raw": lambda path, array: write_hdf5(str(path).removesuffix(":/a/raw"), array),
    "a.zarr": zarr.save_array,
}


def copy_of(source):
    return pickle.loads(pickle.dumps(source))


@pytest.mark.parametrize("name", WRITERS)
def test_a_copy_reads_the_same_pixels(tmp_path, stack, name):
    WRITERS[name](tmp_path / name, stack)
    source = open_source(tmp_path / name, name="mine", pixel_size=(4.0, 5.0))
    copy = copy_of(source)
    assert len({copy._key, source._key}) == 2
    for attribute in ("name", "path", "files", "layout", "pixel_size", "channels", "notes"):
        assert getattr(copy, attribute) == getattr(source, attribute)
    source.close()
    for plane in range(source.n_planes):
        np.testing.assert_array_equal(copy.read(plane), source.read(plane))
    assert copy.fingerprint() == source.fingerprint()


def test_axes_and_channels_travel(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    source = open_source(tmp_path / "a.tif", axes="CYX", channels=[3, 1])
    np.testing.assert_array_equal(copy_of(source).read(0), stack[[3, 1]])


@pytest.mark.parametrize("inner", [False, True])
def test_windows_and_normalised_images_travel(pages, stack, inner):
    source = open_source(pages)
    part = window(source, planes=[4, 1], rows=slice(5, 30), columns=slice(7, 50))
    part = window(part, rows=slice(2, 9)) if inner else part
    copy = copy_of(part)
    np.testing.assert_array_equal(copy.read(0), part.read(0))
    np.testing.assert_array_equal(copy.read(1), part.read(1))
    (normalized,) = normalize_sources([part], NormalizationConfig())
    np.testing.assert_array_equal(copy_of(normalized).read(1), normalized.read(1))


def test_the_folder_of_the_other_process_does_not_matter(pages, stack, tmp_path, monkeypatch):
    monkeypatch.chdir(pages.parent)
    pickled = pickle.dumps(open_source(pages.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(pickle.loads(pickled).read(2)[0], stack[2])


def test_a_copy_gives_its_file_back(pages):
    source = open_source(pages)
    gc.collect()  # what earlier tests left would go only between the two counts
    before = len(POOL)
    copy = copy_of(source)
    copy.read(0)
    assert len(POOL) == before + 1
    del copy
    gc.collect()
    assert len(POOL) == before


def test_a_file_that_changed_meanwhile_is_refused(pages, stack):
    pickled = pickle.dumps(open_source(pages))
    tifffile.imwrite(pages, stack[:2])
    with pytest.raises(UnreadableFileError, match="changed since it was opened"):
        pickle.loads(pickled).read(0)
