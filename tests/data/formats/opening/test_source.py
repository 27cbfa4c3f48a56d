import threading

import dask.array
import h5py
import imageio.v3 as iio
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.data.formats.opening.source import open_source


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
