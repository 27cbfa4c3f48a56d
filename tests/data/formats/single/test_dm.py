"""Files of DigitalMicrograph, written by a few lines that follow its description."""

import struct

import numpy as np
import pytest

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError

CODES = {"i2": (2, 1), "u2": (4, 10), "f4": (6, 2), "u1": (10, 6), "i4": (3, 7), "f8": (7, 12)}


class Writer:
    """Writes tags as bytes.

    Counts are big-endian and have 32 bits in DM3, 64 in DM4; values are of `order`.
    """

    def __init__(self, version, order):
        self.order = order
        self.letter = ">q" if version == 4 else ">i"
        self.lengths = version == 4

    def count(self, *numbers):
        return b"".join(struct.pack(self.letter, number) for number in numbers)

    def tag(self, name, content, kind):
        length = self.count(len(content)) if self.lengths else b""
        return struct.pack(">bH", kind, len(name)) + name.encode() + length + content

    def folder(self, tags):
        content = b"\1\0" + self.count(len(tags))
        for name, value in tags if isinstance(tags, list) else tags.items():
            is_value = isinstance(value, bytes)
            content += self.tag(
                name, value if is_value else self.folder(value), 21 - (not is_value)
            )
        return content

    def value(self, types, raw):
        return b"%%%%" + self.count(len(types), *types) + raw

    def number(self, value):
        return self.value([5], struct.pack(f"{self.order}I", value))

    def real(self, value):
        return self.value([6], struct.pack(f"{self.order}f", value))

    def text(self, words):
        raw = words.encode("utf-16-le" if self.order == "<" else "utf-16-be")
        return self.value([20, 4, len(raw) // 2], raw)


def image_tags(writer, array, steps, unit):
    """Tags of an image; the file counts axes from the fastest."""
    letters = array.dtype.newbyteorder("=").str[1:]
    type_of_values, type_of_image = CODES.get(letters, (3, 23))
    dimensions = [
        ("", {"Origin": writer.real(0), "Scale": writer.real(step), "Units": writer.text(unit)})
        for step in steps[::-1]
    ]
    raw = array.astype(array.dtype.newbyteorder(writer.order)).tobytes()
    return {
        "ImageData": {
            # A structure of two numbers, as real files have many.
            "Rectangle": writer.value([15, 0, 2, 0, 3, 0, 3], bytes(8)),
            "Points": writer.value([20, 15, 0, 2, 0, 6, 0, 6, 3], bytes(24)),
            "Note": writer.text("x" * 2000),
            "Calibrations": {"Dimension": dimensions},
            "Data": writer.value([20, type_of_values, array.size], raw),
            "DataType": writer.number(type_of_image),
            "Dimensions": [("", writer.number(size)) for size in array.shape[::-1]],
            "PixelDepth": writer.number(array.itemsize),
        },
        "Name": writer.text("image"),
    }


def write(path, *arrays, steps=(50, 4, 3), unit="nm", version=4, order="<"):
    """Write images behind a thumbnail, whose type is a packed colour."""
    writer = Writer(version, order)
    thumbnail = image_tags(writer, np.zeros((9, 8), np.uint32), (1, 1), "")
    images = [image_tags(writer, array, steps[-array.ndim :], unit) for array in arrays]
    tags = writer.folder({"ImageList": [("", one) for one in (thumbnail, *images)]})
    head = struct.pack(">i", version) + writer.count(len(tags))
    path.write_bytes(head + struct.pack(">i", order == "<") + tags + bytes(8))
    return path


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", CODES)
def test_the_image_behind_the_thumbnail(tmp_path, stack, version, order, dtype, assert_reads):
    array = stack.astype(dtype)
    source = open_source(write(tmp_path / f"a.dm{version}", array, version=version, order=order))
    assert_reads(source, array)
    assert source.pixel_size == pytest.approx((4, 3))
    assert source.plane_distance == pytest.approx(50)


@pytest.mark.parametrize(
    ("unit", "factor"), [("µm", 0.001), ("nm", 1), ("", None), ("1/nm", None), ("s", None)]
)
def test_units(tmp_path, stack, unit, factor):
    steps = [step * (factor or 1) for step in (50, 4, 3)]
    source = open_source(write(tmp_path / "a.dm4", stack, steps=steps, unit=unit))
    assert source.pixel_size == (factor and pytest.approx((4, 3)))


def test_small_images_of_sixteen_bits_are_no_texts(tmp_path, stack, assert_reads):
    array = stack[:1, :24, :32].astype(np.uint16)
    assert_reads(open_source(write(tmp_path / "a.dm3", array[0], version=3)), array)


def test_the_largest_of_several_images(tmp_path, stack, assert_reads):
    source = open_source(write(tmp_path / "a.dm4", stack[0, :10], stack, stack[0]))
    assert_reads(source, stack)
    assert source.notes == ("holds 3 images, of which the largest is used",)


def test_a_file_without_an_image(tmp_path):
    with pytest.raises(UnreadableFileError, match="no image of real numbers"):
        open_source(write(tmp_path / "a.dm4"))


def test_every_cut_is_told(tmp_path, stack):
    whole = write(tmp_path / "a.dm4", stack).read_bytes()
    rng = np.random.default_rng(0)
    for length in [0, 3, 9, *rng.integers(10, len(whole) - 200, 40)]:
        (tmp_path / "a.dm4").write_bytes(whole[:length])
        with pytest.raises(UnreadableFileError, match=r"a\.dm4: .*cut short"):
            open_source(tmp_path / "a.dm4")


def test_damage_is_told(tmp_path, stack):
    """Whatever bytes are changed, there is an image or an error that names the file."""
    whole = write(tmp_path / "a.dm4", stack[:1, :9]).read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 6):
            content[place] = rng.integers(0, 256)
        (tmp_path / "a.dm4").write_bytes(content)
        try:
            open_source(tmp_path / "a.dm4").read(0)
        except UnreadableFileError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all("a.dm4" in message for message in messages)


def test_a_header_that_claims_terabytes(tmp_path, stack):
    path = write(tmp_path / "a.dm4", stack)
    content = path.read_bytes()
    pixels = struct.pack(">3q", 20, 10, stack.size)
    assert content.count(pixels) == 1
    path.write_bytes(content.replace(pixels, struct.pack(">3q", 20, 10, 2**43)))
    with pytest.raises(UnreadableFileError, match="cut short"):
        open_source(path)
    path.write_bytes(content.replace(struct.pack("<I", 56), struct.pack("<I", 2**31)))
    with pytest.raises(UnreadableFileError, match="11200 bytes for shape"):
        open_source(path)


def test_tags_that_never_end_or_are_nested_without_end(tmp_path):
    writer = Writer(4, "<")
    many = b"\1\0" + writer.count(2**60)
    deep = (
        b"\1\0"
        + writer.count(1)
        + (struct.pack(">bH", 20, 0) + writer.count(9) + b"\1\0" + writer.count(1)) * 99
    )
    for tags, words in [(many, "cut short"), (deep, "nested too deeply")]:
        head = struct.pack(">i", 4) + writer.count(len(tags)) + struct.pack(">i", 1)
        (tmp_path / "a.dm4").write_bytes(head + tags)
        with pytest.raises(UnreadableFileError, match=words):
            open_source(tmp_path / "a.dm4")
    (tmp_path / "a.dm4").write_bytes(b"no image at all")
    with pytest.raises(UnreadableFileError, match="no DM3 or DM4 file"):
        open_source(tmp_path / "a.dm4")
