"""NRRD volumes, written by pynrrd."""

import bz2
import gzip

import nrrd
import numpy as np
import pytest

from napari_affmae.data.discovery import find_sources
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError


def write(path, array, **header):
    """Write planes of rows and columns; NRRD lists the fastest axis first."""
    fields = {name.replace("_", " "): value for name, value in header.items()}
    nrrd.write(str(path), array, fields, index_order="C")
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("dtype", ["u1", ">i2", "<u4", "f8"])
def test_types_and_encodings(tmp_path, stack, encoding, dtype, assert_reads):
    array = stack.astype(dtype)
    source = open_source(write(tmp_path / "a.nrrd", array, encoding=encoding))
    assert_reads(source, array)
    assert source.pixel_size is None


@pytest.mark.parametrize(
    "header",
    [
        {"spacings": [3, 4, 50], "units": ["nm"] * 3},
        {
            "space_dimension": 3,
            "space_directions": [[0, 3, 0], [-4, 0, 0], [0, 0, 50]],
            "space_units": ["nm"] * 3,
        },
        {"spacings": [3e-6, 4e-6, 5e-5], "units": ["mm"] * 3},
        {"spacings": [3, 4, 50]},
    ],
)
def test_sizes(tmp_path, stack, header):
    known = "nm" in str(header) or "mm" in str(header)
    source = open_source(write(tmp_path / "a.nrrd", stack, **header))
    assert source.pixel_size == (pytest.approx((4, 3)) if known else None)
    assert source.plane_distance == (pytest.approx(50) if known else None)


def test_kinds_of_axes(tmp_path, stack, assert_reads):
    colours = np.stack([stack, 255 - stack, stack // 2], axis=-1)
    kinds = ["RGB-color", "domain", "domain", "domain"]
    directions = [[np.nan] * 3, [3, 0, 0], [0, 4, 0], [0, 0, 50]]
    space = {"space_dimension": 3, "space_directions": directions, "space_units": ["nm"] * 3}
    source = open_source(write(tmp_path / "a.nrrd", colours, kinds=kinds, **space))
    assert_reads(source, colours)
    assert source.pixel_size == (4, 3)
    kinds = ["space", "space", "time"]
    assert_reads(open_source(write(tmp_path / "b.nrrd", stack, kinds=kinds)), stack)
    assert_reads(open_source(write(tmp_path / "c.nrrd", stack[0])), stack[:1])


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_pixels_in_a_file_beside_the_header(tmp_path, stack, encoding, assert_reads):
    write(tmp_path / "a.nhdr", stack, encoding=encoding)
    found = find_sources(tmp_path)
    assert [source.name for source in found.sources] == ["a.nhdr"]
    assert_reads(found.sources[0], stack)
    assert len(found.sources[0].files) == 2


def header_of(stack, *lines):
    sizes = " ".join(map(str, stack.shape[::-1]))
    fields = ["NRRD0004", "type: uchar", f"dimension: {stack.ndim}", f"sizes: {sizes}", *lines]
    return ("\n".join(fields) + "\n").encode()


def test_units_beyond_ascii(tmp_path, stack):
    lines = ['units: "µm" "µm" "µm"', "spacings: 0.003 0.004 0.05", "encoding: raw"]
    (tmp_path / "a.nrrd").write_bytes(header_of(stack, *lines) + b"\n" + stack.tobytes())
    source = open_source(tmp_path / "a.nrrd")
    assert source.pixel_size == (4, 3)
    assert source.plane_distance == 50


def test_skipped_lines_and_bytes(tmp_path, stack, assert_reads):
    pixels = stack.tobytes()
    for number, (lines, before, content) in enumerate(
        [
            (["encoding: raw", "byte skip: -1"], b"anything", pixels),
            (["encoding: raw", "line skip: 2", "byteskip: 3"], b"a\nb\nxyz", pixels),
            (["encoding: gzip", "byte skip: 4"], b"", gzip.compress(b"abcd" + pixels)),
            (["encoding: bz2", "line skip: 1"], b"a\n", bz2.compress(pixels)),
        ]
    ):
        (tmp_path / f"{number}.raw").write_bytes(before + content)
        text = header_of(stack, *lines, f"data file: {number}.raw")
        (tmp_path / f"{number}.nhdr").write_bytes(text + b"\n")
        assert_reads(open_source(tmp_path / f"{number}.nhdr"), stack)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["encoding: raw", "data file: ../b.raw"], "not in its folder"),
        (["encoding: raw", "data file: nothing.raw"], "nothing.raw, which is not there"),
        (["encoding: raw", "data file: LIST", "b.raw"], "in several files"),
        (["encoding: raw", "data file: %d.raw 1 5 1"], "in several files"),
        (["encoding: ascii"], "stored as ascii"),
        (["encoding: raw", "byte skip: -2"], "-2 bytes to skip"),
        (["encoding: raw", "data file: b.raw", "byte skip: 1"], "cut short: 11200 bytes of 11201"),
        (["encoding: raw"], "cut short"),
        (["nothing"], r"a\.nhdr"),
    ],
)
def test_what_is_not_read_is_said(tmp_path, stack, lines, words):
    folder = tmp_path / "in"
    folder.mkdir()
    for place in (folder, tmp_path):
        (place / "b.raw").write_bytes(stack.tobytes())
    (folder / "a.nhdr").write_bytes(header_of(stack, *lines) + b"\n")
    with pytest.raises(UnreadableFileError, match=words):
        open_source(folder / "a.nhdr")
    if "not in its folder" in words:
        open_source(folder / "a.nhdr", outside=True)


def test_damaged_files_and_headers_that_claim_terabytes(tmp_path, stack):
    path = tmp_path / "a.nrrd"
    large = np.broadcast_to(np.uint8(0), (9, 2_000_000, 2_000_000))
    path.write_bytes(header_of(large, "encoding: gzip") + b"\n" + gzip.compress(b"x"))
    with pytest.raises(UnreadableFileError, match="GiB when it is decoded"):
        open_source(path)
    path.write_bytes(header_of(large, "encoding: raw") + b"\n" + bytes(99))
    with pytest.raises(UnreadableFileError, match="cut short"):
        open_source(path)
    path.write_bytes(b"no image")
    with pytest.raises(UnreadableFileError, match="magic line"):
        open_source(path)
    write(path, stack, encoding="gzip")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UnreadableFileError, match=r"plane 0 of .*a\.nrrd"):
        open_source(path).read(0)
