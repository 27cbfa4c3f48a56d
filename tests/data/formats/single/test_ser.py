"""Series of TIA, written by a few lines that follow the format's description."""

import struct
import tracemalloc

import numpy as np
import pytest

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError

CODES = {"u1": 1, "u2": 2, "u4": 3, "i1": 4, "i2": 5, "i4": 6, "f4": 7, "f8": 8, "c8": 9, "c16": 10}
HEADER = {0x210: "<4sHIIIIII", 0x220: "<4sHIIIIQI"}
ELEMENT = "<ddiddiHii"
TIME_TAG = bytes(8)


def write(path, images, *, steps=(4e-9, 3e-9), version=0x220, kind=0x4122, planned=None):
    """Write (rows, columns) images, whose bottom rows come first, each with a tag behind it.

    The steps are one pair for all images, or one for each; the places of planned
    images that were not recorded are zero.
    """
    planned = len(images) if planned is None else planned
    steps = steps if isinstance(steps, list) else [steps] * len(images)
    scan = struct.pack("<Iddi", planned, 0, 1, 0) + struct.pack("<I", 6) + b"Number" + bytes(4)
    table = struct.calcsize(HEADER[version]) + len(scan)
    letter = "I" if version == 0x210 else "Q"
    place = table + 2 * planned * struct.calcsize(f"<{letter}")
    places, tags, content = [0] * planned, [0] * planned, b""
    for number, (image, (row, column)) in enumerate(zip(images, steps, strict=True)):
        places[number] = place + len(content)
        code = CODES[image.dtype.newbyteorder("=").str[1:]]
        content += struct.pack(ELEMENT, 5, column, 0, 7, row, 0, code, *image.shape[::-1])
        content += image[::-1].tobytes()
        tags[number] = place + len(content)
        content += TIME_TAG
    head = struct.pack(
        HEADER[version], b"II\x97\x01", version, kind, 0x4152, planned, len(images), table, 1
    )
    path.write_bytes(head + scan + struct.pack(f"<{2 * planned}{letter}", *places, *tags) + content)
    return path


@pytest.mark.parametrize("version", [0x210, 0x220])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8"])
def test_planes_with_the_top_row_first(tmp_path, stack, version, dtype, assert_reads):
    images = stack.astype(dtype)
    source = open_source(write(tmp_path / "a.ser", images, version=version))
    assert_reads(source, images)
    assert source.layout.plane_axes == "T"
    assert source.pixel_size == pytest.approx((4, 3))
    assert source.notes == ()


def test_a_single_image(tmp_path, stack, assert_reads):
    source = open_source(write(tmp_path / "a.SER", stack[:1]))
    assert_reads(source, stack[:1])
    assert source.plane_shape == ()


@pytest.mark.parametrize(
    "steps", [(1, 1), (2e7, 2e7), (0, 0), (float("nan"), 1e-9), (float("inf"), 1e-9)]
)
def test_steps_that_are_no_length(tmp_path, stack, steps):
    assert open_source(write(tmp_path / "a.ser", stack, steps=steps)).pixel_size is None


def test_pixel_sizes_that_differ_are_told(tmp_path, stack):
    steps = [(4e-9, 3e-9)] * 4 + [(8e-9, 6e-9)]
    source = open_source(write(tmp_path / "a.ser", stack, steps=steps))
    assert source.pixel_size is None
    (note,) = source.notes
    assert "different pixel sizes" in note


def test_a_series_that_was_stopped(tmp_path, stack, assert_reads):
    source = open_source(write(tmp_path / "a.ser", stack, planned=9))
    assert_reads(source, stack)
    assert source.notes == ("holds 5 images of 9 that were to be recorded",)
    with pytest.raises(UnreadableFileError, match="holds no image: 0 of 9"):
        open_source(write(tmp_path / "b.ser", [], planned=9))


def test_what_is_no_image_is_refused(tmp_path, stack):
    path = tmp_path / "a.ser"
    for images, options, words in [
        (stack, {"kind": 0x4120}, "spectra and no images"),
        (stack, {"kind": 0x4121}, "elements of kind 0x4121"),
        (stack.astype("c8"), {}, "complex numbers"),
        (stack.astype("c16"), {}, "complex numbers"),
        ([stack[0], stack[1, :9]], {}, r"number 2 has \(9, 56\) of uint8"),
        ([stack[0], stack[1].astype("u2")], {}, r"number 2 has \(40, 56\) of uint16"),
        ([stack[0], stack[1, :0]], {}, r"header is invalid: shape \(0, 56\)"),
    ]:
        with pytest.raises(UnreadableFileError, match=words):
            open_source(write(path, images, **options))


def test_other_files_and_versions(tmp_path, stack):
    path = write(tmp_path / "a.ser", stack)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + struct.pack("<H", 0x230) + whole[6:])
    with pytest.raises(UnreadableFileError, match="unknown version 0x0230"):
        open_source(path)
    path.write_bytes(b"LUCAM-RECORDER" + bytes(200))  # a video of an astronomer's camera
    with pytest.raises(UnreadableFileError, match="no series of TIA"):
        open_source(path)
    (tmp_path / "a.emi").touch()
    with pytest.raises(UnreadableFileError, match=r"images are in the \.ser files"):
        open_source(tmp_path / "a.emi")


def test_every_cut_is_told(tmp_path, stack):
    path = write(tmp_path / "a.ser", stack)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    last = len(whole) - len(TIME_TAG) - 1
    for length in [0, 3, 25, last, *rng.integers(26, last, 40)]:
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableFileError, match=r"a\.ser: .*cut short"):
            open_source(path)


@pytest.mark.parametrize("field", ["images", "table", "place", "size"])
def test_headers_that_claim_terabytes(tmp_path, stack, field):
    path = write(tmp_path / "a.ser", stack[:1])
    content = bytearray(path.read_bytes())
    table, element = struct.unpack_from("<Q", content, 22)[0], len(content) - 40 * 56 - 58
    assert struct.unpack_from("<Q", content, table) == (element,)
    place, letters, values = {
        "images": (14, "<II", [2**32 - 1] * 2),
        "table": (22, "<Q", [2**64 - 1]),
        "place": (table, "<Q", [2**63]),
        "size": (element + 42, "<ii", [2**31 - 1] * 2),
    }[field]
    struct.pack_into(letters, content, place, *values)
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UnreadableFileError, match="cut short"):
        open_source(path)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 2**24


def test_damage_is_told(tmp_path, stack):
    """Whatever bytes of the headers are changed, there is an image or an error with the file."""
    path = write(tmp_path / "a.ser", stack[:1, :9])
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole) - 9 * 56, 3):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            open_source(path).read(0)
        except UnreadableFileError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all("a.ser" in message for message in messages)


@pytest.mark.parametrize("axes", ["YTX", "YXT"])
def test_planes_across_the_rows_or_columns(tmp_path, stack, axes, assert_reads):
    source = open_source(write(tmp_path / "a.ser", stack), axes=axes)
    assert_reads(source, np.moveaxis(stack, axes.index("T"), 0))
