import struct
import threading
from pathlib import Path

import dask.array
import h5py
import imageio.v3 as iio
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_affmae.data import encoded, hdf5, ome_zarr
from napari_affmae.data.discovery import find_sources
from napari_affmae.data.kept import KeptChunks
from napari_affmae.data.opening import open_source
from napari_affmae.data.tiff import open_file
from napari_affmae.errors import UnreadableFileError


def assert_reads(source, expected):
    """Compare whole planes and parts with (planes, rows, columns) or (..., channels last)."""
    expected = expected[:, None] if expected.ndim == 3 else np.moveaxis(expected, -1, 1)
    assert source.n_planes == len(expected)
    for plane in (len(expected) - 1, 0):
        np.testing.assert_array_equal(source.read(plane), expected[plane])
        part = source.read(plane, slice(3, 20), slice(10, 99))
        np.testing.assert_array_equal(part, expected[plane, :, 3:20, 10:99])
    assert source.read(0).dtype == expected.dtype.newbyteorder("=")


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_arrays(stack, kind):
    array = {
        "numpy": lambda: stack,
        "dask": lambda: dask.array.from_array(stack, chunks=(1, 20, 20)),
        "zarr": lambda: zarr.array(stack, chunks=(1, 20, 20)),
    }[kind]()
    assert_reads(open_source(array), stack)


def test_read_gives_a_copy(stack):
    source = open_source(stack)
    source.read(0)[:] = 0
    assert stack[0].any()


def test_what_is_no_image_is_refused():
    with pytest.raises(TypeError, match="got int"):
        open_source(3)
    with pytest.raises(TypeError, match="complex64"):
        open_source(np.zeros((4, 4), np.complex64))


def test_planes_and_steps_that_are_not_there(stack):
    source = open_source(stack)
    with pytest.raises(IndexError, match="planes 0 to 4, asked for 5"):
        source.read(5)
    with pytest.raises(ValueError, match="step 1"):
        source.read(0, slice(0, 10, 2))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "rowsperstrip": 7},
        {"compression": "zlib", "tile": (16, 16)},
        {"tile": (16, 32)},
        {"compression": "zlib", "metadata": None},
        {"compression": "lzw", "predictor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff(tmp_path, stack, options, dtype):
    expected = stack.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", expected, **options)
    assert_reads(open_source(tmp_path / "a.tif"), expected)


def test_contiguous_tiff_is_memory_mapped_and_others_are_not_decoded_whole(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    tifffile.imwrite(tmp_path / "b.tif", stack, compression="zlib", tile=(16, 16))
    mapped, tiled = open_file(tmp_path / "a.tif"), open_file(tmp_path / "b.tif")
    assert isinstance(mapped.array, np.memmap)
    assert tiled.array.chunks == (1, 16, 16)
    mapped.close()
    tiled.close()


def test_planes_compressed_as_one_piece_are_kept(tmp_path):
    large = np.random.default_rng(0).integers(0, 255, (3, 600, 600), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", large, compression="zlib", rowsperstrip=600, photometric="minisblack"
    )
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.create_dataset("raw", data=large, chunks=(1, 600, 600), compression="gzip")
    zarr.create_array(tmp_path / "a.zarr", data=large, chunks=(1, 600, 600))
    for file in (
        open_file(tmp_path / "a.tif"),
        hdf5.open_file(tmp_path / "a.h5", None),
        ome_zarr.open_file(tmp_path / "a.zarr", None),
    ):
        assert isinstance(file.array, KeptChunks)
        assert file.resident == large.nbytes
        file.close()
    for name in ("a.tif", "a.h5", "a.zarr"):
        assert_reads(open_source(tmp_path / name), large)


def test_kept_planes_stay_within_their_size():
    large = np.random.default_rng(0).integers(0, 255, (6, 600, 600), dtype=np.uint8)
    kept = KeptChunks(zarr.array(large, chunks=(1, 600, 600)), size=2 * 600 * 600)
    for plane in (0, 1, 2, 0, 5):
        part = kept[plane, slice(5, 9), slice(0, 7)]
        np.testing.assert_array_equal(part, large[plane, 5:9, :7])
    assert [key[0] for key in kept._kept] == [0, 5]


def test_imagej_hyperstack(tmp_path):
    array = np.random.default_rng(0).integers(0, 999, (2, 3, 2, 24, 30), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        imagej=True,
        resolution=(0.25, 0.2),
        metadata={"axes": "TZCYX", "unit": "nm"},
    )
    source = open_source(tmp_path / "a.tif")
    assert source.n_channels == 2
    assert source.pixel_size == (5.0, 4.0)
    assert_reads(source, np.moveaxis(array, 2, -1).reshape(6, 24, 30, 2))


def test_ome_tiff(tmp_path, stack):
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        stack,
        compression="zlib",
        metadata={
            "axes": "CYX",
            "PhysicalSizeX": 0.004,
            "PhysicalSizeY": 5.0,
            "PhysicalSizeYUnit": "nm",
        },
    )
    source = open_source(tmp_path / "a.ome.tif")
    assert (source.n_planes, source.n_channels) == (1, 5)
    assert source.pixel_size == (5.0, 4.0)
    np.testing.assert_array_equal(source.read(0), stack)
    assert_reads(open_source(tmp_path / "a.ome.tif", axes="ZYX"), stack)


def write_ome_files(folder, planes, images=((0, 1),), sizes=()):
    """Write single planes, each with OME metadata of one or several stacks of them."""
    described = ""
    for number, members in enumerate(images):
        size = f'PhysicalSizeX="{sizes[number]}" PhysicalSizeY="{sizes[number]}"' if sizes else ""
        height, width = planes[members[0]].shape
        data = "".join(
            f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1">'
            f'<UUID FileName="{member}.ome.tif">urn:uuid:{member}</UUID></TiffData>'
            for z, member in enumerate(members)
        )
        described += (
            f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYZCT" '
            f'Type="uint8" SizeX="{width}" SizeY="{height}" SizeZ="{len(members)}" SizeC="1" '
            f'SizeT="1" {size}>{data}</Pixels></Image>'
        )
    for number, plane in enumerate(planes):
        xml = (
            f'<?xml version="1.0"?><OME UUID="urn:uuid:{number}" '
            f'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{described}</OME>'
        )
        tifffile.imwrite(folder / f"{number}.ome.tif", plane, description=xml, metadata=None)


def test_ome_tiff_without_its_other_files_is_refused(tmp_path, stack):
    write_ome_files(tmp_path, stack[:1])
    with pytest.raises(UnreadableFileError, match="files that are not there"):
        open_source(tmp_path / "0.ome.tif")


def test_files_of_one_ome_stack_are_one_image(tmp_path, stack):
    write_ome_files(tmp_path, stack[:3], images=[(0, 1, 2)])
    (source,) = find_sources(tmp_path).sources
    assert_reads(source, stack[:3])
    assert [file.name for file in source.files] == ["0.ome.tif", "1.ome.tif", "2.ome.tif"]


def test_file_of_several_ome_images_gives_its_own_with_its_pixel_size(tmp_path, stack):
    write_ome_files(tmp_path, [*stack[:2], stack[2, :30]], [(0,), (1,), (2,)], [0.01, 0.02, 0.03])
    found = find_sources(tmp_path).sources
    assert [source.pixel_size for source in found] == [(10.0, 10.0), (20.0, 20.0), (30.0, 30.0)]
    for source, plane in zip(found, stack, strict=False):
        np.testing.assert_array_equal(source.read(0)[0], plane[: source.height])


def test_colour_tiff(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (2, 24, 30, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", compression="zlib")
    assert_reads(open_source(tmp_path / "a.tif"), array)


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((1e6, 2e6), "CENTIMETER", (5.0, 10.0)),
        ((72, 72), "INCH", None),
        ((1e6, 1e6), "NONE", None),
    ],
)
def test_tiff_resolution_counts_only_at_microscopic_sizes(
    tmp_path, stack, resolution, unit, expected
):
    tifffile.imwrite(tmp_path / "a.tif", stack[0], resolution=resolution, resolutionunit=unit)
    assert open_source(tmp_path / "a.tif").pixel_size == expected


def test_pixel_size_of_scanning_microscopes(tmp_path, stack):
    fei = b"[Scan]\r\nPixelWidth=4e-09\r\nPixelHeight=5e-09\r\n\x00"
    tifffile.imwrite(tmp_path / "fei.tif", stack[0], extratags=[(34682, "s", len(fei), fei, True)])
    zeiss = "\r\n".join(["0"] * 70) + "\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 3.5 nm\r\n"
    tifffile.imwrite(
        tmp_path / "zeiss.tif", stack[0], extratags=[(34118, "s", len(zeiss), zeiss, True)]
    )
    assert open_source(tmp_path / "fei.tif").pixel_size == (5.0, 4.0)
    assert open_source(tmp_path / "zeiss.tif").pixel_size == (3.5, 3.5)


def test_largest_series_is_used_and_told(tmp_path, stack):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(stack[0, :10, :10], metadata=None)
        writer.write(stack, metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert_reads(source, stack)
    assert "2 image series" in source.notes[0]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg"])
def test_encoded_images(tmp_path, stack, suffix):
    path = tmp_path / f"a{suffix}"
    iio.imwrite(path, stack[0])
    assert_reads(open_source(path), iio.imread(path)[None])


def test_colour_png_and_one_of_its_channels(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (24, 30, 4), dtype=np.uint8)
    iio.imwrite(tmp_path / "a.png", array)
    assert_reads(open_source(tmp_path / "a.png"), array[None])
    green = open_source(tmp_path / "a.png", channels=1)
    np.testing.assert_array_equal(green.read(0)[0], array[..., 1])


def test_palette_and_sixteen_bit_png(tmp_path, stack):
    Image.fromarray(stack[0]).convert("P").save(tmp_path / "palette.png")
    assert_reads(open_source(tmp_path / "palette.png", channels=0), stack[:1])
    iio.imwrite(tmp_path / "deep.png", stack[0].astype(np.uint16) * 200)
    assert_reads(open_source(tmp_path / "deep.png"), stack[:1].astype(np.uint16) * 200)


def test_large_pictures_are_no_attack_and_count_as_memory(tmp_path, stack, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    iio.imwrite(tmp_path / "a.png", stack[0])
    assert_reads(open_source(tmp_path / "a.png"), stack[:1])
    assert encoded.open_file(tmp_path / "a.png").resident == stack[0].nbytes


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float32])
def test_mrc(tmp_path, stack, dtype):
    expected = stack.astype(np.int16).astype(dtype)
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(expected)
        file.voxel_size = (49.0, 50.0, 80.0)
    source = open_source(tmp_path / "a.mrc")
    assert_reads(source, expected)
    assert source.pixel_size == pytest.approx((5.0, 4.9))


def write_mrc(path, stack, changes, tail=b""):
    """Write bytes as IMOD does, with some bytes of the header changed."""
    mrcfile.write(path, stack.view(np.int8))
    content = bytearray(path.read_bytes())
    for start, value in {152: b"IMOD" + bytes(4), **changes}.items():
        content[start : start + len(value)] = value
    path.write_bytes(content + tail)


def test_bytes_of_imod_are_unsigned_unless_flagged(tmp_path, stack):
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
def test_mrc_that_bends_the_format_is_read_and_told(tmp_path, stack, changes, tail, note):
    write_mrc(tmp_path / "a.st", stack, changes, tail)
    source = open_source(tmp_path / "a.st")
    assert_reads(source, stack)
    assert note in source.notes[0]


def test_file_without_the_marks_or_the_size_of_an_mrc_is_refused(tmp_path, stack):
    write_mrc(tmp_path / "a.st", stack, {208: bytes(8)}, b"xx")
    with pytest.raises(UnreadableFileError, match="no MRC identifier"):
        open_source(tmp_path / "a.st")


def test_hdf5(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw = file.create_dataset("volumes/raw", data=stack, chunks=(1, 16, 16))
        raw.attrs["element_size_um"] = [0.04, 0.005, 0.004]
        file["small"] = stack[0]
        file["words"] = "not an image"
    source = open_source(tmp_path / "a.h5")
    assert_reads(source, stack)
    assert source.pixel_size == (5.0, 4.0)
    assert "volumes/raw" in source.notes[0]
    small = open_source(f"{tmp_path / 'a.h5'}:/small")
    assert small.name == "a.h5:/small"
    assert_reads(small, stack[:1])
    file = hdf5.open_file(tmp_path / "a.h5", None)
    file.close()
    assert not file.array  # h5py's word for closed


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        (("c", "y", "x"), 5),
        (("channel", "Y", "X"), 5),
        (("yaw", "y", "x"), 1),
        (("a", "b", "c"), 1),
        (("z", "y", "y"), 1),
    ],
)
def test_axes_by_the_names_of_dimensions(tmp_path, stack, names, channels):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("raw", data=stack)
        for axis, label in enumerate(names):
            data.dims[axis].label = label
    zarr.create_array(tmp_path / "a.zarr", data=stack, dimension_names=names)
    for path in (tmp_path / "a.h5", tmp_path / "a.zarr"):
        assert open_source(path).n_channels == channels


def test_hdf5_with_links_and_one_pixel_size_for_all_axes(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/data"] = stack
        file["deep/data"].attrs["element_size_um"] = 0.005
        file["raw"] = h5py.SoftLink("/deep/data")
    source = open_source(f"{tmp_path / 'a.h5'}:/raw")
    assert_reads(source, stack)
    assert source.pixel_size == (5.0, 5.0)


def test_ambiguous_hdf5_lists_its_datasets(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = stack
        file["label"] = stack
    with pytest.raises(UnreadableFileError, match=r"label \(5, 40, 56\), raw.*FILE:/NAME"):
        open_source(tmp_path / "a.h5")
    with pytest.raises(UnreadableFileError, match=r"no image array '/nothing'; it has: label"):
        open_source(f"{tmp_path / 'a.h5'}:/nothing")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_array_and_group(tmp_path, stack, zarr_format):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("raw", data=stack, chunks=(1, 16, 16))
    group.create_array("more/small", data=stack[0])
    assert_reads(open_source(tmp_path / "a.zarr" / "raw"), stack)
    assert_reads(open_source(tmp_path / "a.zarr"), stack)
    assert_reads(open_source(f"{tmp_path / 'a.zarr'}:/more/small"), stack[:1])


def write_ome_zarr(path: Path, array, version: str) -> None:
    """Write two resolutions as the specification says (ngff.openmicroscopy.org)."""
    units = {"z": "micrometer", "y": "micrometer", "x": "nanometer"}
    multiscale = {
        "axes": [
            {"name": "c", "type": "channel"},
            *({"name": axis, "type": "space", "unit": unit} for axis, unit in units.items()),
        ],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 0.04, 0.0025 * 2**level, 2 * 2**level]}
                ],
            }
            for level in range(2)
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 2]}],
    }
    old = version == "0.4"
    group = zarr.open_group(path, mode="w", zarr_format=2 if old else 3)
    group.create_array("0", data=array, chunks=(1, 1, 16, 16))
    group.create_array("1", data=array[..., ::2, ::2])
    group.create_array("labels/cells/0", data=array)
    if old:
        group.attrs["multiscales"] = [{**multiscale, "version": version}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version):
    array = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 40), dtype=np.uint8)
    write_ome_zarr(tmp_path / "a.zarr", array, version)
    source = open_source(tmp_path / "a.zarr")
    assert source.n_channels == 2
    assert source.pixel_size == pytest.approx((5.0, 4.0))
    assert_reads(source, np.moveaxis(array, 0, -1))


@pytest.mark.parametrize(
    ("axes", "dataset", "reason"),
    [("yx", "0", "name the axes"), ("zyy", "0", "name the axes"), ("zyx", "9", "'9', where no")],
)
def test_ome_zarr_whose_metadata_do_not_fit_is_named_and_left_out(
    tmp_path, stack, axes, dataset, reason
):
    group = zarr.open_group(tmp_path / "odd.zarr", mode="w")
    group.create_array("0", data=stack)
    named = [{"name": axis, "type": "space"} for axis in axes]
    group.attrs["ome"] = {"multiscales": [{"axes": named, "datasets": [{"path": dataset}]}]}
    tifffile.imwrite(tmp_path / "good.tif", stack)
    found = find_sources(tmp_path)
    assert [source.name for source in found.sources] == ["good.tif"]
    assert "odd.zarr" in found.skipped[0].reason
    assert reason in found.skipped[0].reason


def test_given_pixel_size_goes_before_the_files(tmp_path, stack):
    iio.imwrite(tmp_path / "a.png", stack[0])
    assert open_source(tmp_path / "a.png", pixel_size=(7.0, 8.0)).pixel_size == (7.0, 8.0)


def test_booleans_are_read_as_numbers():
    source = open_source(np.eye(5, dtype=bool))
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(source.read(0)[0], np.eye(5))


def test_fingerprint_is_of_the_content(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    tifffile.imwrite(tmp_path / "b.tif", stack, compression="zlib", byteorder=">")
    changed = stack.copy()
    changed[2, 20, 28] ^= 1
    mine = open_source(stack).fingerprint()
    assert open_source(tmp_path / "a.tif").fingerprint() == mine
    assert open_source(tmp_path / "b.tif").fingerprint() == mine
    assert open_source(changed).fingerprint() != mine
    assert open_source(stack.view(np.int8)).fingerprint() != mine
    assert open_source(stack[:4]).fingerprint() != mine


@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.png", "a.mrc", "a.zarr"])
def test_many_threads_read_the_same_source(tmp_path, name):
    array = np.random.default_rng(0).integers(0, 255, (6, 64, 64), dtype=np.uint8)
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, array, compression="zlib", rowsperstrip=8)
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["raw"] = array
    elif name == "a.png":
        array = array[:1]
        iio.imwrite(path, array[0])
    elif name == "a.mrc":
        array = array.astype(np.uint16)
        mrcfile.write(path, array)
    else:
        zarr.save_array(path, array)
    source = open_source(path)
    wrong = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            plane, top, left = rng.integers(len(array)), *rng.integers(0, 40, 2)
            part = source.read(int(plane), slice(top, top + 20), slice(left, left + 20))
            if not np.array_equal(part[0], array[plane, top : top + 20, left : left + 20]):
                wrong.append((plane, top, left))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    source.close()


def test_tiff_header_alone_is_not_enough(tmp_path):
    (tmp_path / "a.tif").write_bytes(struct.pack("<2sHI", b"II", 42, 8))
    with pytest.raises(UnreadableFileError, match=r"a\.tif"):
        open_source(tmp_path / "a.tif")
