"""Uncompressed files are read by positions, never mapped."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import mrcfile
import numpy as np
import pytest
import tifffile

from napari_affmae.data.formats.arrays import positioned
from napari_affmae.data.formats.arrays.positioned import PositionedArray

_SHRINK = """
import os, sys
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError
source = open_source(sys.argv[1])
source.read(7)
os.truncate(sys.argv[1], 4096)
try:
    source.read(7)
except UnreadableFileError as error:
    sys.exit(0 if all(word in str(error) for word in sys.argv[1:]) else str(error))
sys.exit("nothing was said")
"""


@pytest.mark.parametrize("name", ["a.mrc", "a.tif", "tiled.tif", "zlib.tif"])
def test_a_file_that_shrinks_is_named_and_ends_nothing(tmp_path, name):
    path = tmp_path / name
    stack = np.random.default_rng(0).integers(0, 9, (8, 256, 256)).astype(np.int16)
    if name == "a.mrc":
        mrcfile.write(path, stack)
    else:
        options = {"tiled.tif": {"tile": (64, 64)}, "zlib.tif": {"compression": "zlib"}}
        tifffile.imwrite(path, stack, **options.get(name, {}))
    # In a process of its own, because a mapped file would end this one.
    words = ["cut short"] if name in {"a.mrc", "a.tif"} else []
    run = [sys.executable, "-c", _SHRINK, str(path), *words]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write(path, array, offset=13):
    path.write_bytes(bytes(offset) + array.tobytes())
    return PositionedArray(path, array.dtype, offset, array.shape)


PARTS = (slice(None), slice(1, 3), slice(2, 2), slice(1, 99), 1)


@pytest.mark.parametrize("gap", [0, 2**15])
@pytest.mark.parametrize("span", [1, 2**19])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4"])
def test_every_part_is_what_numpy_reads(tmp_path, monkeypatch, gap, span, dtype):
    monkeypatch.setattr(positioned, "_GAP", gap)
    monkeypatch.setattr(positioned, "_SPAN", span)
    array = np.arange(3 * 4 * 5 * 3).reshape(3, 4, 5, 3).astype(dtype)
    file = write(tmp_path / "a", array)
    for index in product(PARTS, repeat=4):
        part = file[index]
        np.testing.assert_array_equal(part, array[index])
    file.close()


def test_where_the_system_has_no_positioned_reads(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "preadv", raising=False)
    array = np.random.default_rng(0).integers(0, 255, (9, 64, 64), dtype=np.uint8)
    file = write(tmp_path / "a", array)

    def read(plane):
        for _ in range(50):
            np.testing.assert_array_equal(file[plane, 3:60, 5:9], array[plane, 3:60, 5:9])

    with ThreadPoolExecutor(9) as executor:
        list(executor.map(read, range(9)))
    os.truncate(tmp_path / "a", 100)
    with pytest.raises(ValueError, match="cut short: 100 bytes"):
        file[8, :, :]
    file.close()


def test_only_what_is_needed_is_asked_for(tmp_path):
    """The last rows of a window may be the last of the file."""
    array = np.arange(40, dtype=np.uint8).reshape(4, 10)
    file = write(tmp_path / "a", array)
    os.truncate(tmp_path / "a", 13 + 35)
    np.testing.assert_array_equal(file[slice(1, 4), slice(2, 5)], array[1:4, 2:5])
    file.close()
