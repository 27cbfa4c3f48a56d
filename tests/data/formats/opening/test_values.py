"""Files whose numbers mean something else than grey from black."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_affmae.data.discovery import find_pairs, find_sources
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError

GREYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (24, 30), dtype=np.uint8)


@pytest.fixture
def colours():
    """A table of colours with a few that differ."""
    table = np.zeros((256, 3), np.uint8)
    table[:4] = (0, 0, 0), (255, 0, 0), (0, 255, 0), (7, 8, 9)
    return table


def wide(table):
    """A table of colours as TIFF has it."""
    return table.T.astype(np.uint16) * 257


def write_bits(path, packed, height, width, bits, photometric):
    """Write a TIFF of one strip of grey with any number of bits."""
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(packed)),
    ]
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    path.write_bytes(head + packed + struct.pack("<H", len(tags)) + entries + bytes(4))


def png_chunk(kind, data):
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def write_png(path, numbers, bits):
    """Write grey of 1, 2 or 4 bits; its width fills whole bytes."""
    height, width = numbers.shape
    parts = numbers.reshape(height, -1, 8 // bits)
    shifts = np.arange(8 - bits, -1, -bits)
    packed = (parts << shifts).sum(axis=2).astype(np.uint8)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), packed], axis=1)

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_grey_from_white_is_inverted(tmp_path, image, dtype, options):
    stored = image.astype(dtype) * (np.iinfo(dtype).max // 255)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="miniswhite", byteorder=">", **options)
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0)[0], np.iinfo(dtype).max - stored)
    assert source.dtype == dtype
    assert "0 is white" in source.notes[0]
    labels = open_source(path, labels=True)
    np.testing.assert_array_equal(labels.read(0)[0], stored)


def test_grey_of_four_bits_from_white_is_inverted_within_four_bits(tmp_path):
    numbers = np.arange(16, dtype=np.uint8).reshape(4, 4)
    packed = (numbers[:, ::2] << 4 | numbers[:, 1::2]).tobytes()
    write_bits(tmp_path / "a.tif", packed, 4, 4, bits=4, photometric=0)
    np.testing.assert_array_equal(open_source(tmp_path / "a.tif").read(0)[0], 15 - numbers)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_grey_from_white_without_an_end_is_told(tmp_path, image, dtype):
    tifffile.imwrite(tmp_path / "a.tif", image.astype(dtype), photometric="miniswhite")
    source = open_source(tmp_path / "a.tif")
    np.testing.assert_array_equal(source.read(0)[0], image)
    assert "0 is white" in source.notes[0]


def test_masks_of_one_bit_are_what_was_written(tmp_path, image):
    tifffile.imwrite(tmp_path / "a.tif", image > 100)  # which it marks as grey from white
    np.testing.assert_array_equal(open_source(tmp_path / "a.tif").read(0)[0], image > 100)
    assert open_source(tmp_path / "a.tif").notes
    assert not open_source(tmp_path / "a.tif", labels=True).notes


@pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp"])
def test_numbers_of_colours_are_classes_in_labels_and_colours_in_images(tmp_path, suffix, colours):
    numbers = (np.arange(720).reshape(24, 30) % 4).astype(np.uint8)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / f"a{suffix}"
        if suffix == ".tif":
            tifffile.imwrite(path, numbers, photometric="palette", colormap=wide(colours))
        else:
            picture = Image.fromarray(numbers, "P")
            picture.putpalette(colours.tobytes())
            picture.save(path)
    ((read_image, read_labels),) = find_pairs(tmp_path)
    np.testing.assert_array_equal(read_labels.read(0)[0], numbers)
    np.testing.assert_array_equal(np.moveaxis(read_image.read(0), 0, -1), colours[numbers])
    (alone,) = find_sources(tmp_path / "labels", labels=True).sources
    assert alone.n_channels == 1


@pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp"])
@pytest.mark.parametrize("table", [GREYS, GREYS[::-1]], ids=["rising", "falling"])
def test_tables_of_greys_give_one_channel(tmp_path, image, suffix, table):
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, image, photometric="palette", colormap=wide(table))
    else:
        picture = Image.fromarray(image, "P")
        picture.putpalette(table.tobytes())
        picture.save(path)
    source = open_source(path)
    assert source.n_channels == 1
    np.testing.assert_array_equal(source.read(0)[0], table[image, 0])
    np.testing.assert_array_equal(
        source.read(0, slice(3, 9), slice(5, 20))[0], table[image, 0][3:9, 5:20]
    )


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}], ids=str)
def test_tables_that_only_show_values_are_left_out(tmp_path, image, colours, options):
    stack = np.stack([image, image.T.reshape(image.shape)])
    metadata = {"axes": "ZYX"}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, colormap=wide(colours), metadata=metadata, **options)
    source = open_source(path)
    assert (source.n_planes, source.n_channels) == (2, 1)
    np.testing.assert_array_equal(source.read(1)[0], stack[1])
    assert "table of colours" in source.notes[0]


@pytest.mark.parametrize("kind", ["png", "png of 16 bits", "tif", "planar tif"])
@pytest.mark.parametrize("samples", [2, 4])
def test_transparency_is_no_channel_unless_asked_for(tmp_path, kind, samples):
    deep = kind == "png of 16 bits"
    dtype = np.uint16 if deep else np.uint8
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (24, 30, samples), dtype)
    path = tmp_path / ("a.png" if "png" in kind else "a.tif")
    if "png" in kind:
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        planar = kind.startswith("planar")
        tifffile.imwrite(
            path,
            np.moveaxis(pixels, -1, 0) if planar else pixels,
            photometric="rgb" if samples == 4 else "minisblack",
            planarconfig="separate" if planar else "contig",
            extrasamples=["unassalpha"],
        )
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0), np.moveaxis(pixels, -1, 0)[:-1])
    assert source.dtype == dtype
    assert "transparency" in source.notes[0]
    everything = open_source(path, channels=range(samples))
    np.testing.assert_array_equal(everything.read(0), np.moveaxis(pixels, -1, 0))
    assert not everything.notes


def test_samples_that_are_no_transparency_are_channels(tmp_path):
    pixels = np.zeros((24, 30, 4), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    assert open_source(tmp_path / "a.tif").n_channels == 4


def test_transparent_stack_of_several_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 24, 30, 4), dtype=np.uint8)
    metadata = {"axes": "CYXS"}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", metadata=metadata)
    source = open_source(tmp_path / "a.ome.tif")
    assert source.channels == (0, 1, 2, 4, 5, 6)
    assert open_source(tmp_path / "a.ome.tif", axes="ZYXS").n_channels == 4


@pytest.mark.parametrize("shape", [(24, 30), (24, 30, 3)])
def test_pngs_of_16_bits(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    source = open_source(tmp_path / "a.png")
    read = np.moveaxis(source.read(0), 0, -1)
    np.testing.assert_array_equal(read, pixels if len(shape) == 3 else pixels[..., None])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pngs_of_few_bits_are_spread_over_grey_but_not_over_classes(tmp_path, bits):
    numbers = (np.arange(64).reshape(8, 8) % 2**bits).astype(np.uint8)
    write_png(tmp_path / "a.png", numbers, bits)
    grey, classes = (open_source(tmp_path / "a.png", labels=labels) for labels in (False, True))
    np.testing.assert_array_equal(classes.read(0)[0], numbers)
    step = 1 if bits == 1 else 255 // (2**bits - 1)
    np.testing.assert_array_equal(grey.read(0)[0], numbers * step)


def test_a_transparent_colour_is_no_channel(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "a.png", transparency=3)
    np.testing.assert_array_equal(open_source(tmp_path / "a.png").read(0), image[None])
    deep = np.repeat(image[..., None], 3, axis=2).astype(np.uint16) * 257
    raw = imagecodecs.png_encode(deep)
    end_of_header = 33
    key = png_chunk(b"tRNS", struct.pack(">HHH", 257, 257, 257))
    (tmp_path / "deep.png").write_bytes(raw[:end_of_header] + key + raw[end_of_header:])
    source = open_source(tmp_path / "deep.png")
    np.testing.assert_array_equal(source.read(0), np.moveaxis(deep, -1, 0))


def test_colours_that_are_no_light_are_refused_by_name(tmp_path, image):
    inks = np.repeat(image[..., None], 4, axis=2)
    Image.fromarray(inks, "CMYK").save(tmp_path / "inks.jpg")
    tifffile.imwrite(tmp_path / "inks.tif", inks, photometric="separated")
    tifffile.imwrite(tmp_path / "lab.tif", inks[..., :3], photometric="cielab")
    tifffile.imwrite(tmp_path / "differences.tif", inks[..., :3], photometric="ycbcr")
    for name, words in [
        ("inks.jpg", "CMYK"),
        ("inks.tif", "CMYK"),
        ("lab.tif", "CIE"),
        ("differences.tif", "YCbCr"),
    ]:
        with pytest.raises(UnreadableFileError, match=rf"{name}.*{words}"):
            open_source(tmp_path / name)


def test_colours_that_jpeg_stores_as_differences_are_read(tmp_path):
    colours = np.full((24, 30, 3), (200, 40, 90), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        colours,
        photometric="rgb",
        compression="jpeg",
        compressionargs={"outcolorspace": "ycbcr"},
    )
    read = open_source(tmp_path / "a.tif").read(0)[:, 5, 5]
    np.testing.assert_allclose(read, (200, 40, 90), rtol=0, atol=3)


def test_cut_bmp_is_refused(tmp_path, image):
    path = tmp_path / "a.bmp"
    Image.fromarray(image).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableFileError, match=r"a\.bmp.*cut short"):
        open_source(path)


def test_texts_beside_pictures_state_sizes(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "a.bmp")
    (tmp_path / "a.txt").write_text("[SemImageFile]\nPixelSize=4.0\n")
    assert open_source(tmp_path / "a.bmp").pixel_size == (4, 4)
