"""What is decoded as a whole is kept, and decoded once however many threads ask for it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from time import sleep

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.data.formats.arrays.decoded import KeptChunks
from napari_affmae.data.formats.opening.recipe import FileRecipe
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.formats.single.encoded import PillowImage

THREADS = 8


class SlowChunks:
    """Planes of an array, each a chunk, that note when they are decoded."""

    def __init__(self, planes, broken=0):
        self.planes, self.broken, self.decoded, self._lock = planes, broken, [], Lock()
        self.shape, self.dtype, self.nbytes = planes.shape, planes.dtype, planes.nbytes
        self.chunks = (1, *planes.shape[1:])

    def __getitem__(self, index):
        with self._lock:
            self.decoded.append(index[0])
            broken = len(self.decoded) <= self.broken
        sleep(0.05)
        if broken:
            raise OSError("torn")
        return self.planes[index]


def read_together(read):
    """Call a function with the numbers of threads that begin at the same time."""
    start = Barrier(THREADS)

    def begin(number):
        start.wait()
        return read(number)

    with ThreadPoolExecutor(THREADS) as executor:
        return [executor.submit(begin, number) for number in range(THREADS)]


@pytest.fixture
def planes():
    return np.random.default_rng(0).integers(0, 255, (4, 20, 30), dtype=np.uint8)


def test_a_chunk_is_decoded_once_for_all_threads(planes):
    array = SlowChunks(planes)
    kept = KeptChunks(array)
    parts = read_together(lambda number: kept[2, slice(number, 20), slice(0, 9)])
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(part.result(), planes[2, number:, :9])
    assert array.decoded == [2]


def test_different_chunks_are_decoded_side_by_side(planes):
    meeting = Barrier(len(planes), timeout=10)

    class Meeting(SlowChunks):
        def __getitem__(self, index):
            meeting.wait()
            return super().__getitem__(index)

    kept = KeptChunks(Meeting(planes))
    parts = read_together(lambda number: kept[number % 4, slice(0, 20), slice(0, 30)])
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(part.result(), planes[number % 4])


def test_after_a_failure_the_next_thread_tries_again(planes):
    array = SlowChunks(planes, broken=1)
    kept = KeptChunks(array)
    parts = read_together(lambda _: kept[1, slice(0, 20), slice(0, 30)])
    failed = [part for part in parts if part.exception()]
    assert len(failed) == 1
    assert array.decoded == [1, 1]


def test_a_picture_is_decoded_once_for_all_threads(tmp_path, planes, monkeypatch):
    iio.imwrite(tmp_path / "a.png", planes[0])
    decoded = []
    decode = PillowImage._decode

    def slow(self):
        decoded.append(self)
        sleep(0.05)
        return decode(self)

    monkeypatch.setattr(PillowImage, "_decode", slow)
    source = open_source(tmp_path / "a.png")
    for part in read_together(lambda _: source.read(0)):
        np.testing.assert_array_equal(part.result()[0], planes[0])
    assert len(decoded) == 1


def test_planes_compressed_as_one_piece_are_kept(tmp_path, assert_reads):
    large = np.random.default_rng(0).integers(0, 255, (3, 600, 600), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", large, compression="zlib", rowsperstrip=600, photometric="minisblack"
    )
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.create_dataset("raw", data=large, chunks=(1, 600, 600), compression="gzip")
    zarr.create_array(tmp_path / "a.zarr", data=large, chunks=(1, 600, 600))
    for name in ("a.tif", "a.h5", "a.zarr"):
        file = FileRecipe.of(str(tmp_path / name)).open()
        assert isinstance(file.array, KeptChunks)
        assert file.resident == large.nbytes
        file.close()
        assert_reads(open_source(tmp_path / name), large)


def test_kept_planes_stay_within_their_size():
    large = np.random.default_rng(0).integers(0, 255, (6, 600, 600), dtype=np.uint8)
    kept = KeptChunks(zarr.array(large, chunks=(1, 600, 600)), size=2 * 600 * 600)
    for plane in (0, 1, 2, 0, 5):
        part = kept[plane, slice(5, 9), slice(0, 7)]
        np.testing.assert_array_equal(part, large[plane, 5:9, :7])
    assert [key[0] for key in kept._piece.cache] == [0, 5]


def test_a_piece_that_is_larger_than_what_is_kept_is_kept_alone():
    large = np.random.default_rng(0).integers(0, 255, (3, 600, 600), dtype=np.uint8)
    kept = KeptChunks(zarr.array(large, chunks=(1, 600, 600)), size=1000)
    for plane in (0, 2):
        np.testing.assert_array_equal(kept[plane, slice(5, 9), slice(0, 7)], large[plane, 5:9, :7])
    assert [key[0] for key in kept._piece.cache] == [2]
