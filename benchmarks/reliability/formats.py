"""Small files of every format that is read, to be damaged.

Who adds a reader adds a line to `FORMATS`. What the installed program does not read,
or what cannot be written because a library is not there, is left out and named.
"""

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import imageio.v3 as iio
import mrcfile
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from napari_affmae.data import SUFFIXES

Pixels = NDArray[np.uint8]
Writer = Callable[[Path, Pixels], None]


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes
    ----------
    name : str
        What the file is called; its ending decides about the reader.
    write : callable
        Writes pixels (planes, rows, columns), uint8, to a path.
    """

    name: str
    write: Writer

    @property
    def is_read(self) -> bool:
        """Whether the program reads such files."""
        return self.name.endswith((*SUFFIXES, ".zarr", ".n5"))


def _tiff(**options: Any) -> Writer:
    options = {"photometric": "minisblack", **options}
    return lambda path, pixels: tifffile.imwrite(path, pixels, **options)


def _colour_tiff(path: Path, pixels: Pixels) -> None:
    colours = np.stack([pixels] * 3, axis=-1)
    tifffile.imwrite(path, colours, photometric="rgb", compression="zlib", predictor=True)


def _imagej(path: Path, pixels: Pixels) -> None:
    metadata = {"axes": "ZYX", "spacing": 0.03, "unit": "um"}
    _tiff(imagej=True, metadata=metadata)(path, pixels.astype(np.uint16))


def _pyramid(path: Path, pixels: Pixels) -> None:
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tiff:
        options = {"tile": (16, 16), "photometric": "minisblack"}
        tiff.write(pixels, subifds=1, metadata={"axes": "ZYX"}, **options)
        tiff.write(pixels[:, ::2, ::2], subfiletype=1, **options)


def _plane(path: Path, pixels: Pixels) -> None:
    iio.imwrite(path, pixels[0])


def _colour_plane(path: Path, pixels: Pixels) -> None:
    iio.imwrite(path, np.stack([pixels[0]] * 3, axis=-1))


def _deep_png(path: Path, pixels: Pixels) -> None:
    iio.imwrite(path, pixels[0].astype(np.uint16) * 200)


def _mrc(dtype: str) -> Writer:
    return lambda path, pixels: mrcfile.write(path, pixels.astype(dtype), voxel_size=8)


def _hdf5(**options: Any) -> Writer:
    def write(path: Path, pixels: Pixels) -> None:
        with h5py.File(path, "w") as file:
            data = file.create_dataset("volumes/raw", data=pixels, **options)
            data.attrs["element_size_um"] = (0.03, 0.008, 0.008)

    return write


def _imaris(path: Path, pixels: Pixels) -> None:
    place = "DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"
    with h5py.File(path, "w") as file:
        file.attrs["DataSetDirectoryName"] = np.frombuffer(b"DataSet", "S1")
        file.attrs["DataSetInfoDirectoryName"] = np.frombuffer(b"DataSetInfo", "S1")
        channel = file.create_group(place)
        for axis, size in zip("ZYX", pixels.shape, strict=True):
            channel.attrs[f"ImageSize{axis}"] = np.frombuffer(str(size).encode(), "S1")
        channel.create_dataset("Data", data=pixels, chunks=True, compression="gzip")
        image = file.create_group("DataSetInfo/Image")
        for name, value in {
            **{axis: str(size) for axis, size in zip("ZYX", pixels.shape, strict=True)},
            **{f"ExtMin{number}": "0" for number in range(3)},
            **{f"ExtMax{number}": "5" for number in range(3)},
            "Unit": "um",
        }.items():
            image.attrs[name] = np.frombuffer(value.encode(), "S1")


def _emd(path: Path, pixels: Pixels) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("data/image")
        group.attrs["emd_group_type"] = 1
        group["data"] = pixels
        for number, size in enumerate(pixels.shape, 1):
            group[f"dim{number}"] = np.arange(size) * 8e-9
            group[f"dim{number}"].attrs["name"] = "zyx"[number - 1]
            group[f"dim{number}"].attrs["units"] = "[m]"


def _npy(path: Path, pixels: Pixels) -> None:
    np.save(path, pixels)


def _nrrd(encoding: str) -> Writer:
    def write(path: Path, pixels: Pixels) -> None:
        columns_first = " ".join(map(str, reversed(pixels.shape)))
        header = (
            f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {columns_first}\n"
            f"space directions: (8,0,0) (0,8,0) (0,0,30)\nencoding: {encoding}\n\n"
        )
        raw = pixels.tobytes()
        path.write_bytes(header.encode() + (raw if encoding == "raw" else gzip.compress(raw)))

    return write


def _nifti(path: Path, pixels: Pixels) -> None:
    import nibabel  # noqa: PLC0415 - not everybody has it

    nibabel.save(nibabel.Nifti1Image(pixels.T, np.diag([8.0, 8.0, 30.0, 1.0])), path)


class _Tags:
    """Writes tags of a DM4 file, each by its name: a value as bytes, a folder as a dict."""

    def folder(self, tags: dict[str, Any]) -> bytes:
        content = b"\1\0" + struct.pack(">q", len(tags))
        for name, value in tags.items():
            is_value = isinstance(value, bytes)
            stored = value if is_value else self.folder(value)
            head = struct.pack(">bH", 21 if is_value else 20, len(name)) + name.encode()
            content += head + struct.pack(">q", len(stored)) + stored
        return content

    def value(self, types: list[int], raw: bytes) -> bytes:
        return b"%%%%" + struct.pack(f">{1 + len(types)}q", len(types), *types) + raw

    def number(self, value: int) -> bytes:
        return self.value([5], struct.pack("<I", value))


def _dm4(path: Path, pixels: Pixels) -> None:
    tags = _Tags()
    unit = "nm".encode("utf-16-le")
    step = {"Scale": tags.value([6], struct.pack("<f", 8)), "Units": tags.value([20, 4, 2], unit)}
    image = {
        "Calibrations": {"Dimension": dict.fromkeys("xyz", step)},
        "Data": tags.value([20, 10, pixels.size], pixels.tobytes()),
        "DataType": tags.number(6),
        "Dimensions": {
            axis: tags.number(size) for axis, size in zip("xyz", pixels.shape[::-1], strict=True)
        },
    }
    root = tags.folder({"ImageList": {"image": {"ImageData": image}}})
    path.write_bytes(struct.pack(">iqi", 4, len(root), 1) + root + bytes(8))


def _ser(path: Path, pixels: Pixels) -> None:
    count, rows, columns = pixels.shape
    table = struct.calcsize("<4sHIIIIQI")
    first, each = table + 16 * count, 50 + rows * columns
    places = [first + number * each for number in range(count)]
    head = struct.pack("<4sHIIIIQI", b"II\x97\x01", 0x220, 0x4122, 0x4152, count, count, table, 0)
    element = struct.pack("<ddiddiHii", 0, 8e-9, 0, 0, 8e-9, 0, 1, columns, rows)
    planes = b"".join(element + plane[::-1].tobytes() for plane in pixels)
    path.write_bytes(head + struct.pack(f"<{2 * count}Q", *places, *places) + planes)


def _compressed_mrc(path: Path, pixels: Pixels) -> None:
    with mrcfile.new(path, pixels.astype(np.int8), compression="gzip"):
        pass


def _zipped_zarr(path: Path, pixels: Pixels) -> None:
    with zarr.storage.ZipStore(path, mode="w") as store:
        zarr.create_array(store, data=pixels, chunks=(1, 32, 32))


def _zarr(**options: Any) -> Writer:
    def write(path: Path, pixels: Pixels) -> None:
        zarr.create_array(path, data=pixels, **options)

    return write


def _ome_zarr(path: Path, pixels: Pixels) -> None:
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [30.0, 8.0, 8.0]}]
    datasets = [{"path": "s0", "coordinateTransformations": scale}]
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("s0", data=pixels, chunks=(1, 32, 32))
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def _n5(path: Path, pixels: Pixels) -> None:
    import tensorstore  # noqa: PLC0415 - not everybody has it

    metadata = {
        "dimensions": pixels.shape[::-1],
        "blockSize": (32, 32, 1),
        "dataType": "uint8",
        "compression": {"type": "gzip"},
        "pixelResolution": {"dimensions": (8, 8, 30), "unit": "nm"},
    }
    place = {"driver": "file", "path": str(path / "raw")}
    spec = {"driver": "n5", "kvstore": place, "metadata": metadata}
    tensorstore.open(spec, create=True).result()[...].write(pixels.T).result()


FORMATS = (
    Format("plain.tif", _tiff()),
    Format("imagej.tif", _imagej),
    Format("ome.ome.tif", _tiff(ome=True, compression="zlib", metadata={"axes": "ZYX"})),
    Format("lzw.tif", _tiff(compression="lzw", rowsperstrip=7)),
    Format("tiled.btf", _tiff(tile=(16, 16), compression="zstd", bigtiff=True)),
    Format("pyramid.ome.tif", _pyramid),
    Format("jpeg.tif", _tiff(compression="jpeg")),
    Format("packed.tif", _tiff(compression="packbits")),
    Format("float.tif", lambda path, pixels: _tiff()(path, pixels.astype(">f4"))),
    Format("colour.tif", _colour_tiff),
    Format("grey.png", _plane),
    Format("deep.png", _deep_png),
    Format("colour.png", _colour_plane),
    Format("grey.bmp", _plane),
    Format("grey.jpg", _plane),
    Format("bytes.mrc", _mrc("int8")),
    Format("floats.rec", _mrc("float32")),
    Format("bytes.mrc.gz", _compressed_mrc),
    Format("plain.h5", _hdf5()),
    Format("matlab.mat", _hdf5()),
    Format("gzip.h5", _hdf5(chunks=(1, 16, 16), compression="gzip", shuffle=True)),
    Format("imaris.ims", _imaris),
    Format("berkeley.emd", _emd),
    Format("gatan.dm4", _dm4),
    Format("tia.ser", _ser),
    Format("array.npy", _npy),
    Format("raw.nrrd", _nrrd("raw")),
    Format("gzip.nrrd", _nrrd("gzip")),
    Format("volume.nii", _nifti),
    Format("volume.nii.gz", _nifti),
    Format("v2.zarr", _zarr(chunks=(1, 32, 32), zarr_format=2)),
    Format("v3.zarr", _zarr(chunks=(1, 32, 32))),
    Format("sharded.zarr", _zarr(chunks=(1, 16, 16), shards=(2, 64, 64))),
    Format("ome.zarr", _ome_zarr),
    Format("janelia.n5", _n5),
    Format("v3.zarr.zip", _zipped_zarr),
)
