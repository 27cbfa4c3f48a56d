import threading

import dask.array
import h5py
import imageio.v3 as iio
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_affmae.data.formats import encoded
from napari_affmae.data.formats.opening import open_source
from napari_affmae.errors import UnreadableFileError


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_arrays(stack, kind, assert_reads):
    array = {
        "numpy": lambda: stack,
        "dask": lambda: dask.array.from_array(stack, chunks=(1, 20, 20)),
        "zarr": lambda: zarr.array(stack, chunks=(1, 20, 20)),
    }[kind]()
    assert_reads(open_source(array), stack)


def test_read_gives_a_copy(stack):
    source = open_source(stack)
    source.read(0)[:] = 0
    assert stack[0].any()


def test_what_is_no_image_is_refused():
    with pytest.raises(TypeError, match="got int"):
        open_source(3)
    with pytest.raises(TypeError, match="complex64"):
        open_source(np.zeros((4, 4), np.complex64))


def test_planes_and_steps_that_are_not_there(stack):
    source = open_source(stack)
    with pytest.raises(IndexError, match="planes 0 to 4, asked for 5"):
        source.read(5)
    with pytest.raises(ValueError, match="step 1"):
        source.read(0, slice(0, 10, 2))


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".bmp"])
def test_encoded_images(tmp_path, stack, suffix, assert_reads):
    path = tmp_path / f"a{suffix}"
    iio.imwrite(path, stack[0])
    assert_reads(open_source(path), iio.imread(path)[None])


def test_colour_png_and_one_of_its_channels(tmp_path, assert_reads):
    array = np.random.default_rng(0).integers(0, 255, (24, 30, 3), dtype=np.uint8)
    iio.imwrite(tmp_path / "a.png", array)
    assert_reads(open_source(tmp_path / "a.png"), array[None])
    green = open_source(tmp_path / "a.png", channels=1)
    np.testing.assert_array_equal(green.read(0)[0], array[..., 1])


def test_palette_and_sixteen_bit_png(tmp_path, stack, assert_reads):
    Image.fromarray(stack[0]).convert("P").save(tmp_path / "palette.png")
    assert_reads(open_source(tmp_path / "palette.png", channels=0), stack[:1])
    iio.imwrite(tmp_path / "deep.png", stack[0].astype(np.uint16) * 200)
    assert_reads(open_source(tmp_path / "deep.png"), stack[:1].astype(np.uint16) * 200)


def test_large_pictures_are_read_and_count_as_memory(tmp_path, stack, monkeypatch, assert_reads):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    iio.imwrite(tmp_path / "a.png", stack[0])
    assert_reads(open_source(tmp_path / "a.png"), stack[:1])
    assert encoded.open_file(tmp_path / "a.png").resident == stack[0].nbytes


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float32])
def test_mrc(tmp_path, stack, dtype, assert_reads):
    expected = stack.astype(np.int16).astype(dtype)
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(expected)
        file.voxel_size = (49.0, 50.0, 80.0)
    source = open_source(tmp_path / "a.mrc")
    assert_reads(source, expected)
    assert source.pixel_size == pytest.approx((5.0, 4.9))
    assert source.plane_distance == pytest.approx(8)


def write_mrc(path, stack, changes, tail=b""):
    """Write bytes as IMOD does, with some bytes of the header changed."""
    mrcfile.write(path, stack.view(np.int8))
    content = bytearray(path.read_bytes())
    for start, value in {152: b"IMOD" + bytes(4), **changes}.items():
        content[start : start + len(value)] = value
    path.write_bytes(content + tail)


def test_bytes_of_imod_are_unsigned_unless_flagged(tmp_path, stack, assert_reads):
    write_mrc(tmp_path / "a.rec", stack, {})
    assert_reads(open_source(tmp_path / "a.rec"), stack)
    write_mrc(tmp_path / "b.rec", stack, {156: b"\1"})
    assert_reads(open_source(tmp_path / "b.rec"), stack.view(np.int8))


@pytest.mark.parametrize(
    ("changes", "tail", "note"),
    [
        ({208: bytes(4)}, b"", "no MRC identifier"),
        ({212: bytes(4)}, b"", "no machine stamp"),
        ({208: bytes(8)}, b"", "no MRC identifier"),
        ({}, b"xx", "2 bytes after its image"),
    ],
)
def test_odd_mrc_is_read_and_told(tmp_path, stack, changes, tail, note, assert_reads):
    write_mrc(tmp_path / "a.st", stack, changes, tail)
    source = open_source(tmp_path / "a.st")
    assert_reads(source, stack)
    assert note in source.notes[0]


def test_file_without_the_marks_or_the_size_of_an_mrc_is_refused(tmp_path, stack):
    write_mrc(tmp_path / "a.st", stack, {208: bytes(8)}, b"xx")
    with pytest.raises(UnreadableFileError, match="no MRC identifier"):
        open_source(tmp_path / "a.st")


def test_given_pixel_size_goes_before_the_files(tmp_path, stack):
    iio.imwrite(tmp_path / "a.png", stack[0])
    assert open_source(tmp_path / "a.png", pixel_size=(7.0, 8.0)).pixel_size == (7.0, 8.0)


def test_booleans_are_read_as_numbers():
    source = open_source(np.eye(5, dtype=bool))
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(source.read(0)[0], np.eye(5))


def test_fingerprint_is_of_the_content(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    tifffile.imwrite(tmp_path / "b.tif", stack, compression="zlib", byteorder=">")
    changed = stack.copy()
    changed[2, 20, 28] ^= 1
    mine = open_source(stack).fingerprint()
    assert open_source(tmp_path / "a.tif").fingerprint() == mine
    assert open_source(tmp_path / "b.tif").fingerprint() == mine
    assert open_source(changed).fingerprint() != mine
    assert open_source(stack.view(np.int8)).fingerprint() != mine
    assert open_source(stack[:4]).fingerprint() != mine


@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.png", "a.mrc", "a.zarr"])
def test_many_threads_read_the_same_source(tmp_path, name):
    array = np.random.default_rng(0).integers(0, 255, (6, 64, 64), dtype=np.uint8)
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, array, compression="zlib", rowsperstrip=8)
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["raw"] = array
    elif name == "a.png":
        array = array[:1]
        iio.imwrite(path, array[0])
    elif name == "a.mrc":
        array = array.astype(np.uint16)
        mrcfile.write(path, array)
    else:
        zarr.save_array(path, array)
    source = open_source(path)
    wrong = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            plane, top, left = rng.integers(len(array)), *rng.integers(0, 40, 2)
            part = source.read(int(plane), slice(top, top + 20), slice(left, left + 20))
            if not np.array_equal(part[0], array[plane, top : top + 20, left : left + 20]):
                wrong.append((plane, top, left))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    source.close()
