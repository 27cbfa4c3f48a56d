import struct

import numpy as np
import pytest
import tifffile

from napari_affmae.data.discovery import find_sources
from napari_affmae.data.formats.arrays.positioned import PositionedArray
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.formats.tiff.reader import open_file
from napari_affmae.errors import UnreadableFileError


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
def test_tiff(tmp_path, stack, options, dtype, assert_reads):
    expected = stack.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", expected, **options)
    assert_reads(open_source(tmp_path / "a.tif"), expected)


def test_contiguous_tiff_is_read_by_positions_and_others_are_not_decoded_whole(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    tifffile.imwrite(tmp_path / "b.tif", stack, compression="zlib", tile=(16, 16))
    plain, tiled = open_file(tmp_path / "a.tif"), open_file(tmp_path / "b.tif")
    assert isinstance(plain.array, PositionedArray)
    assert tiled.array.chunks == (1, 16, 16)
    plain.close()
    tiled.close()


def test_imagej_hyperstack(tmp_path, assert_reads):
    array = np.random.default_rng(0).integers(0, 999, (2, 3, 2, 24, 30), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        imagej=True,
        resolution=(0.25, 0.2),
        metadata={"axes": "TZCYX", "unit": "nm", "spacing": 40},
    )
    source = open_source(tmp_path / "a.tif")
    assert source.n_channels == 2
    assert source.pixel_size == (5.0, 4.0)
    assert source.plane_distance == 40
    assert open_source(tmp_path / "a.tif", axes="ZTCYX").plane_distance is None
    assert_reads(source, np.moveaxis(array, 2, -1).reshape(6, 24, 30, 2))


def test_ome_tiff(tmp_path, stack, assert_reads):
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        stack,
        compression="zlib",
        metadata={
            "axes": "CYX",
            "PhysicalSizeX": 0.004,
            "PhysicalSizeY": 5.0,
            "PhysicalSizeYUnit": "nm",
            "PhysicalSizeZ": 0.04,
        },
    )
    source = open_source(tmp_path / "a.ome.tif")
    assert (source.n_planes, source.n_channels) == (1, 5)
    assert source.pixel_size == (5.0, 4.0)
    np.testing.assert_array_equal(source.read(0), stack)
    planes = open_source(tmp_path / "a.ome.tif", axes="ZYX")
    assert_reads(planes, stack)
    assert planes.plane_distance == 40


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


def write_companion(folder, planes, name="set.companion.ome", listed=None):
    """Write single planes whose OME metadata are in a companion file."""
    namespace = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    for number, plane in enumerate(planes):
        xml = (
            f'<?xml version="1.0"?><OME {namespace} UUID="urn:uuid:{number}">'
            f'<BinaryOnly MetadataFile="{name}" UUID="urn:uuid:set"/></OME>'
        )
        tifffile.imwrite(folder / f"{number}.ome.tif", plane, description=xml, metadata=None)
    height, width = planes[0].shape
    data = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1">'
        f'<UUID FileName="{file}.ome.tif">urn:uuid:{file}</UUID></TiffData>'
        for z, file in enumerate(range(len(planes)) if listed is None else listed)
    )
    return (
        f'<?xml version="1.0"?><OME {namespace} UUID="urn:uuid:set"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="{width}" '
        f'SizeY="{height}" SizeZ="{len(planes)}" SizeC="1" SizeT="1" PhysicalSizeX="0.004" '
        f'PhysicalSizeY="0.005" PhysicalSizeZ="0.04">{data}</Pixels></Image></OME>'
    )


def test_planes_with_a_companion_are_one_stack(tmp_path, stack, assert_reads):
    xml = write_companion(tmp_path, stack[:3])
    (tmp_path / "set.companion.ome").write_text(xml)
    (source,) = find_sources(tmp_path).sources
    assert_reads(source, stack[:3])
    assert (source.pixel_size, source.plane_distance) == ((5, 4), 40)
    assert [file.name for file in source.files] == ["0.ome.tif", "1.ome.tif", "2.ome.tif"]


def test_the_companion_may_be_another_tiff(tmp_path, stack, assert_reads):
    xml = write_companion(tmp_path, stack[:3], "0.ome.tif")
    tifffile.imwrite(
        tmp_path / "0.ome.tif",
        stack[0],
        description=xml.replace("uuid:set", "uuid:0"),
        metadata=None,
    )
    assert_reads(open_source(tmp_path / "2.ome.tif"), stack[:3])


def test_planes_that_lost_their_companion_are_read_and_told(tmp_path, stack, assert_reads):
    xml = write_companion(tmp_path, stack[:3])
    source = open_source(tmp_path / "1.ome.tif")
    assert_reads(source, stack[1:2])
    assert "set.companion.ome, with its metadata, is gone" in source.notes[0]
    (tmp_path / "set.companion.ome").write_text(xml[:-20])
    assert "damaged" in open_source(tmp_path / "1.ome.tif").notes[0]
    (tmp_path / "set.companion.ome").write_text(write_companion(tmp_path, stack[:3], listed=[0, 2]))
    source = open_source(tmp_path / "1.ome.tif")
    assert_reads(source, stack[1:2])
    assert "does not list it" in source.notes[0]


def test_a_companion_elsewhere_is_not_followed(tmp_path, stack):
    (tmp_path / "in").mkdir()
    xml = write_companion(tmp_path / "in", stack[:3], "../set.companion.ome")
    (tmp_path / "set.companion.ome").write_text(xml)
    with pytest.raises(UnreadableFileError, match="not in its folder"):
        open_source(tmp_path / "in" / "0.ome.tif")
    assert open_source(tmp_path / "in" / "0.ome.tif", outside=True).n_planes == 3


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("described", ["slices=3", "slices=8", "slices=3\nchannels=2"])
def test_imagej_that_counts_other_planes_is_read_whole_and_told(
    tmp_path, stack, compression, described, assert_reads
):
    text = f"ImageJ=1.53t\nimages=5\n{described}\nunit=nm\nspacing=40\n"
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for plane in stack:
            writer.write(
                plane,
                description=text,
                compression=compression,
                metadata=None,
                resolution=(0.25, 0.2),
                resolutionunit="NONE",
            )
    source = open_source(tmp_path / "a.tif")
    assert_reads(source, stack)
    assert "does not fit its 5 planes" in source.notes[0]
    assert (source.pixel_size, source.plane_distance) == ((5, 4), 40)


def test_planes_stored_as_channels_are_told(tmp_path, stack, assert_reads):
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "CYX"})
    source = open_source(tmp_path / "a.tif")
    assert source.n_channels == 5
    assert "with the axes ZYX" in source.notes[0]
    planes = open_source(tmp_path / "a.tif", axes="ZYX")
    assert_reads(planes, stack)
    assert not planes.notes


def test_broken_ome_metadata_do_not_matter(tmp_path, stack, assert_reads):
    tifffile.imwrite(tmp_path / "a.tif", stack, description="<OME><Image></OME>", metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert_reads(source, stack)
    assert "OME metadata cannot be read" in source.notes[0]


def test_ome_tiff_without_its_other_files_is_refused(tmp_path, stack):
    write_ome_files(tmp_path, stack[:1])
    with pytest.raises(UnreadableFileError, match="files that are not there"):
        open_source(tmp_path / "0.ome.tif")


def test_files_of_one_ome_stack_are_one_image(tmp_path, stack, assert_reads):
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


def test_colour_tiff(tmp_path, assert_reads):
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


def test_largest_series_is_used_and_told(tmp_path, stack, assert_reads):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(stack[0, :10, :10], metadata=None)
        writer.write(stack, metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert_reads(source, stack)
    assert "2 image series" in source.notes[0]


def test_page_that_claims_more_rows_than_it_has_strips_is_refused(tmp_path, stack):
    tifffile.imwrite(
        tmp_path / "a.tif", stack[0], rowsperstrip=1, compression="zlib", metadata=None
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags["ImageLength"].overwrite(5000)
    with pytest.raises(UnreadableFileError, match="has 40 of its 5000 strips"):
        open_source(tmp_path / "a.tif")


def test_planes_to_be_shown_mirrored_are_read_as_stored_and_told(tmp_path, stack, assert_reads):
    upside_down = (274, "H", 1, 4, True)
    tifffile.imwrite(tmp_path / "a.tif", stack, extratags=[upside_down])
    source = open_source(tmp_path / "a.tif")
    assert_reads(source, stack)
    assert "orientation 4" in source.notes[0]


def test_tiff_header_alone_is_not_enough(tmp_path):
    (tmp_path / "a.tif").write_bytes(struct.pack("<2sHI", b"II", 42, 8))
    with pytest.raises(UnreadableFileError, match=r"a\.tif"):
        open_source(tmp_path / "a.tif")


def test_pages_in_a_circle_are_refused(tmp_path, stack):
    """tifffile's series would go round for ever."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack[:2], metadata=None)
    with tifffile.TiffFile(path) as tiff:
        first, second = (page.offset for page in tiff.pages)
        tags = len(tiff.pages[1].tags)
    content = bytearray(path.read_bytes())
    place = second + 2 + 12 * tags  # of the offset of the next page
    for target in (first, second):
        content[place : place + 4] = target.to_bytes(4, "little")
        path.write_bytes(content)
        with pytest.raises(UnreadableFileError, match="after its first 2 pages"):
            open_source(path)
