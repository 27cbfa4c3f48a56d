"""PNG, JPEG and BMP files."""

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.formats.single import encoded


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
