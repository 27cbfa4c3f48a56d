"""Headers of a few bytes can claim any size, so it is judged before memory is taken."""

import json
import struct
import zlib

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.data.formats.files import pieces
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError

SIDE = 2_000_000  # 3.6 TiB, which no computer has four times
WORDS = (
    rf"of shape \({SIDE}, {SIDE}\) takes 3725\.3 GiB .* at most .* GiB, .* smaller tiles or chunks"
)


def write_png(path):
    def part(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = part(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0))
    pixels = part(b"IDAT", zlib.compress(bytes(99)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + part(b"IEND", b""))


def write_tiff(path):
    """Write a small TIFF of one strip, whose tags then say that it is large."""
    tifffile.imwrite(path, np.zeros((9, 9), np.uint8), compression="zlib", rowsperstrip=9)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages[0].tags[name].overwrite(SIDE, dtype="I")
        tiff.pages[0].tags["ImageDescription"].overwrite("")


def write_zarr(path):
    path.mkdir()
    metadata = {"zarr_format": 2, "shape": [SIDE] * 2, "chunks": [SIDE] * 2, "dtype": "|u1"}
    metadata |= {"compressor": None, "fill_value": 0, "filters": None, "order": "C"}
    (path / ".zarray").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("name", "write"), [("a.png", write_png), ("a.tif", write_tiff), ("a.zarr", write_zarr)]
)
def test_what_claims_more_than_the_memory_is_refused(tmp_path, name, write):
    write(tmp_path / name)
    with pytest.raises(UnreadableFileError, match=WORDS) as caught:
        open_source(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_only_what_is_decoded_whole_is_bounded(tmp_path, monkeypatch, assert_reads):
    array = np.random.default_rng(0).integers(0, 255, (1, 40, 50), dtype=np.uint8)
    monkeypatch.setattr(pieces, "largest_piece", lambda: 999)
    tifffile.imwrite(tmp_path / "plain.tif", array)
    tifffile.imwrite(tmp_path / "tiled.tif", array, compression="zlib", tile=(16, 16))
    tifffile.imwrite(tmp_path / "whole.tif", array, compression="zlib", rowsperstrip=40)
    zarr.create_array(tmp_path / "tiled.zarr", data=array, chunks=(1, 20, 20))
    zarr.create_array(tmp_path / "whole.zarr", data=array, chunks=array.shape)
    zarr.create_array(tmp_path / "sharded.zarr", data=array, chunks=(1, 20, 20), shards=(1, 40, 60))
    for name, options in {
        "plain": {},
        "parts": {"chunks": array.shape},
        "tiled": {"chunks": (1, 20, 20), "compression": "gzip"},
        "whole": {"chunks": array.shape, "compression": "gzip"},
    }.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("raw", data=array, **options)
    iio.imwrite(tmp_path / "whole.png", array[0])
    iio.imwrite(tmp_path / "whole.jpg", array[0])
    for path in sorted(tmp_path.iterdir()):
        if path.stem == "whole":
            with pytest.raises(UnreadableFileError, match="a quarter of this computer's memory"):
                open_source(path)
        else:
            assert_reads(open_source(path), array)
