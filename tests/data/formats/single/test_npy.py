"""Arrays that numpy saved."""

import os

import numpy as np
import pytest

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError


@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4", ">f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_type_and_memory_order(tmp_path, stack, dtype, order, assert_reads):
    array = np.asarray(stack % 2 if dtype == "?" else stack, np.dtype(dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    expected = array.astype(np.uint8) if dtype == "?" else array
    assert_reads(open_source(tmp_path / "a.npy"), expected)
    across = open_source(tmp_path / "a.npy", axes="YXZ")
    np.testing.assert_array_equal(across.read(3)[0], array[..., 3])


def test_axes_of_length_one(tmp_path, stack, assert_reads):
    np.save(tmp_path / "a.npy", stack[..., None])
    assert_reads(open_source(tmp_path / "a.npy"), stack)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[Trap(tmp_path / "made")] * 2] * 2), allow_pickle=True)
    with pytest.raises(UnreadableFileError, match="holds Python objects"):
        open_source(tmp_path / "a.npy")
    assert not (tmp_path / "made").exists()


def test_records_and_complex_numbers_are_no_images(tmp_path):
    for number, dtype in enumerate(["c8", [("a", "u1"), ("b", "u1")], "U3"]):
        np.save(tmp_path / f"{number}.npy", np.zeros((4, 4), dtype))
        with pytest.raises(UnreadableFileError, match="holds no image"):
            open_source(tmp_path / f"{number}.npy")


def test_damaged_and_cut_files(tmp_path, stack):
    path = tmp_path / "a.npy"
    np.save(path, stack)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UnreadableFileError, match="cut short: 11327 bytes of 11328"):
        open_source(path)
    path.write_bytes(whole[:40])
    with pytest.raises(UnreadableFileError, match=r"a\.npy: EOF"):
        open_source(path)
    path.write_bytes(whole.replace(b"(5, 40, 56)", b"(5, 4000000000000, 56)")[: len(whole)])
    with pytest.raises(UnreadableFileError, match=r"a\.npy: "):
        open_source(path)
    path.write_bytes(whole.replace(b"(5, 40, 56), }   ", b"(5, 400000, 56), }"[:17]))
    with pytest.raises(UnreadableFileError, match=r"a\.npy: "):
        open_source(path)
    path.write_bytes(b"PK\3\4" + whole)
    with pytest.raises(UnreadableFileError, match="magic string"):
        open_source(path)
    path.write_bytes(whole[:6] + b"\3" + whole[7:])
    with pytest.raises(UnreadableFileError, match="save it again"):
        open_source(path)


def test_a_file_that_shrinks_is_named(tmp_path, stack):
    np.save(tmp_path / "a.npy", np.asfortranarray(stack))
    source = open_source(tmp_path / "a.npy")
    source.read(0)
    os.truncate(tmp_path / "a.npy", 400)
    with pytest.raises(UnreadableFileError, match="cut short"):
        source.read(4)
