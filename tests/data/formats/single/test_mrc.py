"""MRC files as different programs write them."""

import bz2
import gzip
import struct

import mrcfile
import numpy as np
import pytest

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError


def write(path, array, changes=(), *, size=40.0, data=None):
    """Write an MRC file, whose header then says otherwise at some bytes."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(array)
        file.voxel_size = size
    content = bytearray(path.read_bytes())
    for place, number in dict(changes).items():
        struct.pack_into("<i", content, place, number)
    path.write_bytes(bytes(content[:1024]) + data if data is not None else bytes(content))
    return path


@pytest.mark.parametrize("width", [56, 55])
def test_four_bits(tmp_path, stack, width, assert_reads):
    four = stack[..., :width] >> 4
    rows = np.pad(four, ((0, 0), (0, 0), (0, width % 2)))
    packed = (rows[..., 0::2] | rows[..., 1::2] << 4).tobytes()
    path = write(tmp_path / "a.mrc", four.view(np.int8), {12: 101}, data=packed)
    source = open_source(path)
    assert_reads(source, four)
    for start, stop in [(3, 4), (4, 5), (3, 8), (54, 99), (5, 5)]:
        part = source.read(1, slice(2, 9), slice(start, stop))
        np.testing.assert_array_equal(part[0], four[1, 2:9, start:stop])
    across = open_source(path, axes="YZX")
    np.testing.assert_array_equal(across.read(7)[0], four[:, 7])
    columns = open_source(path, axes="YXZ")
    np.testing.assert_array_equal(columns.read(7)[0], four[..., 7])


def test_colours(tmp_path, stack, assert_reads):
    colours = np.stack([stack, 255 - stack, stack // 2], axis=-1)
    path = write(tmp_path / "a.mrc", stack.view(np.int8), {12: 16}, data=colours.tobytes())
    assert_reads(open_source(path), colours)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 1, 3), (3, 2, 1), (1, 3, 2)])
def test_axes_are_those_that_the_header_names(tmp_path, stack, order, assert_reads):
    """The header numbers the axes of columns, rows and sections; here Z has 5 steps."""
    volume = np.transpose(stack, [3 - axis for axis in reversed(order)])
    changes = dict(zip((64, 68, 72), order, strict=True))
    # Intervals and lengths of the cell follow X, Y, Z, whatever the order of the file.
    changes |= dict(zip((28, 32, 36), stack.shape[::-1], strict=True))
    path = write(tmp_path / "a.mrc", np.ascontiguousarray(volume).view(np.int8), changes)
    content = bytearray(path.read_bytes())
    struct.pack_into("<3f", content, 40, 56 * 30, 40 * 40, 5 * 50)
    path.write_bytes(content)
    source = open_source(path)
    assert_reads(source, stack.view(np.int8))
    assert source.pixel_size == pytest.approx((4, 3))
    assert source.plane_distance == pytest.approx(5)


@pytest.mark.parametrize("order", [(0, 0, 0), (1, 1, 2), (9, 2, 3)])
def test_an_order_of_axes_that_cannot_be_is_the_common_one(tmp_path, stack, order, assert_reads):
    changes = dict(zip((64, 68, 72), order, strict=True))
    assert_reads(
        open_source(write(tmp_path / "a.mrc", stack.view(np.int8), changes)), stack.view("i1")
    )


def test_rows_and_columns_of_a_single_section_may_be_exchanged(tmp_path, stack, assert_reads):
    path = write(tmp_path / "a.mrc", stack[0].view(np.int8), {64: 2, 68: 1, 72: 3})
    assert_reads(open_source(path), stack[:1].view(np.int8).transpose(0, 2, 1))


def test_a_stack_of_volumes(tmp_path, stack, assert_reads):
    volumes = np.stack([stack, 255 - stack]).astype(np.int16)
    path = write(tmp_path / "a.mrcs", volumes)
    source = open_source(path)
    assert source.plane_shape == (2, 5)
    assert_reads(source, volumes.reshape(10, 40, 56))
    for sections in (0, 3):
        write(path, volumes, {36: sections})
        with pytest.raises(UnreadableFileError, match=rf"10 sections in volumes of {sections}"):
            open_source(path)


@pytest.mark.parametrize(("size", "known"), [(1.0, False), (0.0, False), (1.5, True)])
def test_a_size_of_exactly_one_angstrom_is_none(tmp_path, stack, size, known):
    source = open_source(write(tmp_path / "a.mrc", stack.view(np.int8), size=size))
    assert source.pixel_size == (pytest.approx((0.15, 0.15)) if known else None)
    assert source.plane_distance == (pytest.approx(0.15) if known else None)
    assert any("1 angstrom" in note for note in source.notes) == (size == 1)


@pytest.mark.parametrize("name", ["a.ali", "a.preali", "a.join", "a.flip", "A.MRC", "b.ccp4"])
def test_other_endings_of_imod(tmp_path, stack, name, assert_reads):
    assert_reads(open_source(write(tmp_path / name, stack.view(np.int8))), stack.view(np.int8))


@pytest.mark.parametrize(("ending", "module"), [(".gz", gzip), (".bz2", bz2)])
def test_compressed(tmp_path, stack, ending, module, assert_reads):
    plain = write(tmp_path / "a.mrc", stack.astype(np.int16))
    path = tmp_path / f"a.mrc{ending}"
    path.write_bytes(module.compress(plain.read_bytes()))
    source = open_source(path)
    assert_reads(source, stack.astype(np.int16))
    assert source.pixel_size == pytest.approx((4, 4))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnreadableFileError, match=rf"a\.mrc\{ending}: "):
        open_source(path).read(0)
    path.write_bytes(module.compress(plain.read_bytes()[:3000]))
    with pytest.raises(UnreadableFileError, match="cut short: its image has 1976 bytes of 22400"):
        open_source(path).read(0)
    content = bytearray(plain.read_bytes())
    content[208:212] = bytes(4)
    path.write_bytes(module.compress(content))
    with pytest.raises(UnreadableFileError, match="no MRC identifier"):
        open_source(path)


def test_a_compressed_header_that_claims_terabytes(tmp_path, stack):
    plain = write(tmp_path / "a.mrc", stack.view(np.int8), {0: 2_000_000, 4: 2_000_000})
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(UnreadableFileError, match="GiB when it is decoded"):
        open_source(path)
    with pytest.raises(UnreadableFileError, match="cut short"):
        open_source(plain)


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
