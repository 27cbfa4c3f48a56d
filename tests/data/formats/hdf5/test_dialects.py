"""HDF5 files as MATLAB, Imaris, Velox, BigDataViewer and EMD programs write them."""

import json
import os
import sys

import h5py
import numpy as np
import pytest

from napari_affmae.data.formats.files import pieces
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError


def write_matlab(path, **arrays):
    """Write variables as MATLAB does: the last axis first, behind a block of its own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            data = file.create_dataset(name, data=array.transpose())
            data.attrs["MATLAB_class"] = np.bytes_(array.dtype.name)
    return path


def test_matlab(tmp_path, stack, assert_reads):
    rows_first = np.moveaxis(stack, 0, -1)
    path = write_matlab(tmp_path / "a.mat", volume=rows_first, plane=stack[0].astype("f8"))
    assert_reads(open_source(path), stack)
    assert_reads(open_source(f"{path}:/plane"), stack[:1].astype("f8"))
    colours = np.stack([stack[0], stack[1], stack[2]], -1)
    assert_reads(open_source(write_matlab(tmp_path / "b.mat", image=colours)), colours[None])


def test_older_matlab_files_are_named(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(500))
    with pytest.raises(UnreadableFileError, match=r"a\.mat: .*-v7\.3"):
        open_source(tmp_path / "a.mat")
    (tmp_path / "a.h5").write_bytes(b"no image")
    with pytest.raises(UnreadableFileError, match=r"a\.h5: it is no HDF5 file"):
        open_source(tmp_path / "a.h5")


def letters(value):
    return np.array(list(str(value)), "S1")


def write_imaris(path, array, *, unit="um", chunks=(2, 16, 32)):
    """Write (times, channels, planes, rows, columns) padded to whole chunks, and a half of it."""
    padding = [(0, -size % chunk) for size, chunk in zip(array.shape[2:], chunks, strict=True)]
    with h5py.File(path, "w") as file:
        file.attrs["ImarisDataSet"] = letters("ImarisDataSet")
        for time, channel in np.ndindex(array.shape[:2]):
            place = f"TimePoint {time}/Channel {channel}"
            for level in range(2):
                group = file.create_group(f"DataSet/ResolutionLevel {level}/{place}")
                data = np.pad(array[time, channel], padding, constant_values=255)
                step = level + 1
                group.create_dataset(
                    "Data", data=data[:, ::step, ::step], chunks=chunks, compression="gzip"
                )
                for axis, size in zip("ZYX", array.shape[2:], strict=True):
                    group.attrs[f"ImageSize{axis}"] = letters(size)
        image = file.create_group("DataSetInfo/Image").attrs
        for number, (axis, step) in enumerate(zip("XYZ", (0.003, 0.004, 0.05), strict=True)):
            size = array.shape[4 - number]
            image[axis] = letters(size)
            image[f"ExtMin{number}"] = letters(-1.5)
            image[f"ExtMax{number}"] = letters(-1.5 + size * step)
        image["Unit"] = letters(unit)
    return path


@pytest.mark.parametrize(("times", "channels"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_imaris(tmp_path, stack, times, channels, assert_reads):
    parts = [stack + number for number in range(times * channels)]
    array = np.reshape(parts, (times, channels, *stack.shape))
    source = open_source(write_imaris(tmp_path / "a.ims", array))
    assert_reads(source, np.moveaxis(array, 1, -1).reshape(-1, 40, 56, channels))
    assert source.pixel_size == pytest.approx((4, 3))
    assert source.plane_distance == pytest.approx(50)
    last = open_source(tmp_path / "a.ims", channels=channels - 1)
    np.testing.assert_array_equal(last.read(0)[0], array[0, channels - 1, 0])


def test_imaris_that_claims_more_than_it_has(tmp_path, stack, monkeypatch):
    path = write_imaris(tmp_path / "a.ims", stack[None, None])
    with h5py.File(path, "r+") as file:
        group = file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"]
        group.attrs["ImageSizeX"] = letters(2_000_000)
    with pytest.raises(UnreadableFileError, match="is stored as"):
        open_source(path)
    with h5py.File(path, "r+") as file:
        del file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"]
    with pytest.raises(UnreadableFileError, match="without an image"):
        open_source(path)
    write_imaris(path, stack[None, None])
    monkeypatch.setattr(pieces, "largest_piece", lambda: 99)
    with pytest.raises(UnreadableFileError, match="a quarter of this computer's memory"):
        open_source(path)


def write_velox(path, *images, metadata=None):
    """Write stacks as (rows, columns, frames), each with a text of metadata a frame."""
    told = {"BinaryResult": {"PixelSize": {"width": "3e-09", "height": "4e-09"}}}
    told["BinaryResult"] |= {"PixelUnitX": "m", "PixelUnitY": "m"}
    text = json.dumps(told).encode() if metadata is None else metadata
    with h5py.File(path, "w") as file:
        for number, frames in enumerate(images):
            group = file.create_group(f"Data/Image/{number}f2ac1")
            group["Data"] = np.moveaxis(frames, 0, -1)
            column = np.zeros((4096, len(frames)), np.uint8)
            column[: len(text)] = np.frombuffer(text, np.uint8)[:, None]
            group["Metadata"] = column
    return path


@pytest.mark.parametrize("planes", [1, 5])
def test_velox(tmp_path, stack, planes, assert_reads):
    source = open_source(write_velox(tmp_path / "a.emd", stack[:planes].astype(np.uint16)))
    assert_reads(source, stack[:planes].astype(np.uint16))
    assert source.pixel_size == (4, 3)


def test_images_of_velox_are_listed(tmp_path, stack, assert_reads):
    path = write_velox(tmp_path / "a.emd", stack, stack)
    with pytest.raises(
        UnreadableFileError, match=r"Data/Image/0f2ac1/Data .*Data/Image/1f2ac1/Data"
    ):
        open_source(path)
    source = open_source(f"{path}:/Data/Image/1f2ac1/Data")
    assert_reads(source, stack)
    assert source.pixel_size == (4, 3)


@pytest.mark.parametrize("metadata", [b"{", b'{"BinaryResult": {"PixelSize": {"width": "x"}}}'])
def test_damaged_metadata_cost_the_size_alone(tmp_path, stack, metadata, assert_reads):
    source = open_source(write_velox(tmp_path / "a.emd", stack, metadata=metadata))
    assert_reads(source, stack)
    assert source.pixel_size is None
    assert "cannot be read" in source.notes[0]


XML = """<SpimData version="0.2"><SequenceDescription><ViewSetups>
<ViewSetup><id>0</id><voxelSize><unit>{unit}</unit><size>{size}</size></voxelSize></ViewSetup>
<ViewSetup><id>1</id><voxelSize><unit>mm</unit><size>9 9 9</size></voxelSize></ViewSetup>
</ViewSetups></SequenceDescription></SpimData>"""


def write_big_data(path, array, *, setups=1, xml=None):
    """Write 16-bit numbers without sign as BigDataViewer does, and sizes in a file beside."""
    with h5py.File(path, "w") as file:
        for setup in range(setups):
            for level in range(2):
                data = (array.astype(np.uint16) + setup).view(np.int16)[:, :: level + 1]
                file[f"t00000/s{setup:02}/{level}/cells"] = data
            file[f"s{setup:02}/resolutions"] = np.ones((2, 3))
    right = XML.format(unit="um", size="0.003 0.004 0.05")
    path.with_suffix(".xml").write_text(right if xml is None else xml)
    return path


def test_big_data_viewer(tmp_path, stack, assert_reads):
    values = stack.astype(np.uint16) * 257
    source = open_source(write_big_data(tmp_path / "a.h5", values))
    assert_reads(source, values)
    assert source.pixel_size == (4, 3)
    assert source.plane_distance == 50
    assert not source.notes
    source = open_source(write_big_data(tmp_path / "b.h5", values, setups=2))
    assert_reads(source, values)
    assert "t00000/s01/0/cells" in source.notes[0]
    other = open_source(f"{tmp_path / 'b.h5'}:/t00000/s01/1/cells")
    np.testing.assert_array_equal(other.read(2)[0], values[2, ::2] + 1)


@pytest.mark.parametrize(
    "xml", ["<", XML.format(unit="um", size="1 x 2"), XML.format(unit="", size="")]
)
def test_damaged_xml_costs_the_size_alone(tmp_path, stack, xml, assert_reads):
    source = open_source(write_big_data(tmp_path / "a.h5", stack.astype(np.uint16), xml=xml))
    assert_reads(source, stack.astype(np.uint16))
    assert source.pixel_size is None
    assert "cannot be read" in source.notes[0]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes")
def test_a_pipe_beside_is_not_waited_for(tmp_path, stack):
    path = write_big_data(tmp_path / "a.h5", stack.astype(np.uint16))
    path.with_suffix(".xml").unlink()
    os.mkfifo(path.with_suffix(".xml"))
    assert open_source(path).pixel_size is None


def test_emd_of_berkeley(tmp_path, stack, assert_reads):
    with h5py.File(tmp_path / "a.emd", "w") as file:
        group = file.create_group("experimental/science/stack")
        group.attrs["emd_group_type"] = 1
        group["data"] = stack
        for number, (size, step) in enumerate(zip(stack.shape, (50, 4, 3), strict=True)):
            group[f"dim{number + 1}"] = np.arange(size) * step + 7.0
            group[f"dim{number + 1}"].attrs["units"] = "[n_m]"
    source = open_source(tmp_path / "a.emd")
    assert_reads(source, stack)
    assert source.pixel_size == (4, 3)
    assert source.plane_distance == 50


def test_metadata_from_outside_the_folder_are_not_read(tmp_path, stack):
    (tmp_path / "in").mkdir()
    write_velox(tmp_path / "secret.h5", stack)
    write_imaris(tmp_path / "secret.ims", stack[None, None])
    velox = write_velox(tmp_path / "in" / "a.emd", stack)
    with h5py.File(velox, "r+") as file:
        del file["Data/Image/0f2ac1/Metadata"]
        file["Data/Image/0f2ac1/Metadata"] = h5py.ExternalLink(
            "../secret.h5", "Data/Image/0f2ac1/Metadata"
        )
    source = open_source(velox)
    assert source.pixel_size is None
    assert "../secret.h5, which is not in its folder" in source.notes[0]
    assert open_source(velox, outside=True).pixel_size == (4, 3)
    imaris = write_imaris(tmp_path / "in" / "a.ims", stack[None, None])
    with h5py.File(imaris, "r+") as file:
        del file["DataSetInfo/Image"]
        file["DataSetInfo/Image"] = h5py.ExternalLink("../secret.ims", "DataSetInfo/Image")
    with pytest.raises(UnreadableFileError, match=r"secret\.ims, which is not in its folder"):
        open_source(imaris)
