"""HDF5 files, and which of their datasets is the image."""

import h5py
import pytest

from napari_affmae.data.formats.hdf5.reader import open_file
from napari_affmae.data.formats.opening.source import open_source
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
    file = open_file(tmp_path / "a.h5", None)
    file.close()
    assert not file.array  # h5py's word for closed


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
