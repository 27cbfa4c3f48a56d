"""Files that an image file names are read only where the user expects them."""

import os
import sys

import h5py
import numpy as np
import pytest
import tifffile

from napari_affmae.data.discovery import find_sources
from napari_affmae.data.formats.files.foreign import Surroundings
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and links")
REFUSED = "not in its folder and is not followed; put all files of the image into one folder"


@pytest.fixture
def folder(tmp_path):
    """The folder of an image, with another one beside it."""
    (tmp_path / "given" / "below").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "given"


def write_ome(folder, planes, names):
    """Write the planes of one stack to files of these names, all with the same metadata."""
    height, width = planes[0].shape
    data = "".join(
        f'<TiffData IFD="0" FirstZ="{number}" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{number}</UUID></TiffData>'
        for number, name in enumerate(names)
    )
    for number, (plane, name) in enumerate(zip(planes, names, strict=True)):
        xml = (
            f'<?xml version="1.0"?><OME UUID="urn:uuid:{number}" '
            'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="{width}" '
            f'SizeY="{height}" SizeZ="{len(names)}" SizeC="1" SizeT="1">{data}'
            "</Pixels></Image></OME>"
        )
        tifffile.imwrite(folder / name, plane, description=xml, metadata=None)


@pytest.mark.parametrize("absolute", [False, True])
def test_ome_tiff_does_not_reach_out_of_its_folder(folder, stack, monkeypatch, absolute):
    secret = folder.parent / "elsewhere" / "secret.tif"
    write_ome(folder, stack[:2], ["0.tif", str(secret) if absolute else "../elsewhere/secret.tif"])
    opened = []
    original = tifffile.TiffFile.__init__
    monkeypatch.setattr(
        tifffile.TiffFile,
        "__init__",
        lambda self, file, *args, **kwargs: (
            opened.append(str(file)) or original(self, file, *args, **kwargs)
        ),
    )
    with pytest.raises(UnreadableFileError, match=rf"secret\.tif, which is {REFUSED}"):
        open_source(folder / "0.tif")
    assert "secret" in find_sources(folder).skipped[0].reason
    assert not any("secret" in name for name in opened)
    source = open_source(folder / "0.tif", outside=True)
    np.testing.assert_array_equal(source.read(1)[0], stack[1])


def test_ome_tiff_reads_files_below_its_folder(folder, stack, assert_reads):
    write_ome(folder, stack[:2], ["0.tif", "below/1.tif"])
    assert_reads(open_source(folder / "0.tif"), stack[:2])


@posix
def test_ome_tiff_waits_for_no_pipe(folder, stack):
    write_ome(folder, stack[:2], ["0.tif", "1.tif"])
    (folder / "1.tif").unlink()
    os.mkfifo(folder / "1.tif")
    with pytest.raises(UnreadableFileError, match=r"names 1\.tif, which is a pipe"):
        open_source(folder / "0.tif")


def external_storage(folder, target, stack):
    stack.tofile(target)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset(
            "raw", stack.shape, stack.dtype, external=[(str(target), 0, stack.nbytes)]
        )


def external_link(folder, target, stack):
    with h5py.File(target, "w") as file:
        file["group/raw"] = stack
    with h5py.File(folder / "a.h5", "w") as file:
        file["raw"] = h5py.ExternalLink(target, "group/raw")


def soft_and_external_link(folder, target, stack):
    with h5py.File(target, "w") as file:
        file["deep/raw"] = stack
    with h5py.File(folder / "a.h5", "w") as file:
        file["x/far"] = h5py.ExternalLink(os.path.relpath(target, folder), "/deep")
        file["x/near"] = h5py.SoftLink("far")
        file["raw"] = h5py.SoftLink("/x/near/raw")


def virtual(folder, target, stack):
    with h5py.File(target, "w") as file:
        file["raw"] = stack
    layout = h5py.VirtualLayout(stack.shape, stack.dtype)
    layout[:] = h5py.VirtualSource(os.path.relpath(target, folder), "raw", stack.shape)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)


def virtual_in_two_steps(folder, target, stack):
    """The file names one in its folder, which names one elsewhere."""
    virtual(folder, target, stack)
    (folder / "a.h5").rename(folder / "near.h5")
    layout = h5py.VirtualLayout(stack.shape, stack.dtype)
    layout[:] = h5py.VirtualSource("near.h5", "raw", stack.shape)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)


HDF5_WRITERS = [
    external_storage,
    external_link,
    soft_and_external_link,
    virtual,
    virtual_in_two_steps,
]


@pytest.mark.parametrize("write", HDF5_WRITERS)
def test_hdf5_does_not_reach_out_of_its_folder(folder, stack, write, assert_reads):
    write(folder, folder.parent / "elsewhere" / "secret", stack)
    with pytest.raises(UnreadableFileError, match=rf"secret, which is {REFUSED}"):
        open_source(f"{folder / 'a.h5'}:/raw")
    assert_reads(open_source(f"{folder / 'a.h5'}:/raw", outside=True), stack)


@pytest.mark.parametrize("write", HDF5_WRITERS)
def test_hdf5_reads_files_below_its_folder(folder, stack, write, assert_reads):
    write(folder, folder / "below" / "part", stack)
    assert_reads(open_source(f"{folder / 'a.h5'}:/raw"), stack)


@pytest.mark.parametrize("write", HDF5_WRITERS)
def test_parts_of_hdf5_that_are_not_there_are_no_zeros(folder, stack, write):
    write(folder, folder / "below" / "part", stack)
    (folder / "below" / "part").unlink()
    with pytest.raises(UnreadableFileError, match="part, which is not there"):
        open_source(f"{folder / 'a.h5'}:/raw")


def test_links_of_hdf5_that_go_round(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file["raw"] = h5py.SoftLink("/other")
        file["other"] = h5py.SoftLink("/raw")
    with pytest.raises(UnreadableFileError, match="do not end"):
        open_source(f"{folder / 'a.h5'}:/raw")


def test_a_virtual_dataset_of_its_own_file(folder, stack, assert_reads):
    with h5py.File(folder / "a.h5", "w") as file:
        file["raw"] = stack
        layout = h5py.VirtualLayout(stack.shape, stack.dtype)
        layout[:] = h5py.VirtualSource(file["raw"])
        file.create_virtual_dataset("seen", layout)
    assert_reads(open_source(f"{folder / 'a.h5'}:/seen"), stack)


@posix
def test_a_folder_behind_a_link_is_the_same_folder(folder):
    (folder.parent / "link").symlink_to(folder, target_is_directory=True)
    (folder / "x").touch()
    around = Surroundings(folder.parent / "link")
    assert around.check("x", folder) == folder / "x"
    assert around.check("below/../x", folder) is not None
    (folder / "out").symlink_to(folder.parent / "elsewhere", target_is_directory=True)
    with pytest.raises(ValueError, match="not followed"):
        around.check("out/x", folder)
