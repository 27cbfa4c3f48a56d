import struct

import numpy as np
import pytest
import tifffile

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.sources.units import to_nanometres, to_plausible_nanometres

XML = '<?xml version="1.0" encoding="UTF-16"?>'


def write(path, *tags, **options):
    """Write a small TIFF with these tags: (code, type, count, value)."""
    image = np.arange(600, dtype=np.uint8).reshape(20, 30) % 251
    extratags = [(*tag, True) for tag in tags]
    tifffile.imwrite(path, image, extratags=extratags, metadata=None, **options)
    return path


def text_tag(code, text, encoding="ascii"):
    raw = text.encode(encoding) + b"\0"
    return code, "s", len(raw), raw


def sizes(path):
    source = open_source(path)
    return source.pixel_size, source.plane_distance, source.notes


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("\u00b5m", 1000),  # the sign of micro
        ("\u03bcm", 1000),  # the Greek letter
        ("\\u00B5m", 1000),
        ("\\u03bcm", 1000),
        ("Âµm", 1000),
        ("microns", 1000),
        ("Micrometres", 1000),
        ("um\0", 1000),
        (" nanometers ", 1),
        ("\u212b", 0.1),  # the sign of the unit
        ("\u00c5", 0.1),  # the letter
        ("angstroms", 0.1),
        ("mm", 1e6),
    ],
)
def test_spellings_of_units(unit, factor):
    assert to_nanometres(2, unit) == pytest.approx(2 * factor)


@pytest.mark.parametrize(
    ("value", "unit"), [(1, "pixel"), (1, ""), (1, None), (0, "nm"), (-1, "nm"), ("wide", "nm")]
)
def test_what_is_no_length_is_unknown(value, unit):
    assert to_nanometres(value, unit) is None


@pytest.mark.parametrize("dots", [72, 96, 150, 300, 600, 1200])
def test_resolutions_of_paper_are_no_sizes_of_pixels(dots):
    assert to_plausible_nanometres(1 / dots, "inch") is None
    assert to_plausible_nanometres(2.54 / dots, "cm") is None
    assert to_plausible_nanometres(25.4 / dots, "mm") is None
    assert to_plausible_nanometres(25400 / dots, "µm") is None


def write_imagej(path, resolution, **metadata):
    image = np.zeros((3, 20, 30), np.uint8)
    metadata = {"axes": "ZYX", **metadata}
    tifffile.imwrite(path, image, imagej=True, resolution=resolution, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("resolution", "metadata", "expected"),
    [
        ((0.25, 0.2), {"unit": "nm", "spacing": 40}, ((5, 4), 40)),
        ((250, 200), {"unit": "micron", "spacing": -0.04}, ((5, 4), 40)),
        ((0.25, 0.2), {"unit": "nm", "spacing": 0.04, "zunit": "micron"}, ((5, 4), 40)),
        ((0.25, 200), {"unit": "nm", "yunit": "um", "spacing": 40}, ((5, 4), 40)),
        ((1, 1), {"unit": "pixel", "spacing": 1}, (None, None)),
        ((72, 72), {"unit": "inch"}, (None, None)),
        ((118.11, 118.11), {"unit": "cm"}, (None, None)),
        ((2e6, 2e6), {"unit": "cm", "spacing": 4e-6}, ((5, 5), 40)),
    ],
    ids=str,
)
def test_units_of_imagej(tmp_path, resolution, metadata, expected):
    pixel, distance, _ = sizes(write_imagej(tmp_path / "a.tif", resolution, **metadata))
    assert pixel == (None if expected[0] is None else pytest.approx(expected[0]))
    assert distance == expected[1]


def test_ome_sizes_of_a_printer_are_unknown(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 352.777, "PhysicalSizeY": 352.777}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((3, 20, 30), np.uint8), metadata=metadata)
    assert open_source(tmp_path / "a.ome.tif").pixel_size is None


def zeiss(*lines):
    return "\r\n".join([*["0"] * 70, *lines, ""])


def tvips():
    old = np.zeros((), np.dtype(tifffile.TIFF.TVIPS_HEADER_V1))
    old["Version"] = 2
    new = np.zeros((), np.dtype(tifffile.TIFF.TVIPS_HEADER_V2))
    new["Magic"], new["PixelSizeX"], new["PixelSizeY"] = 0xAAAAAAAA, 4, 5
    return old.tobytes() + new.tobytes()


def fibics(unit, *steps):
    names = ("Ux", "Uy", "Vx", "Vy")
    inner = "".join(
        f'<{name} unit="{unit}">{step}</{name}>' for name, step in zip(names, steps, strict=True)
    )
    return f"{XML}<Fibics><Scan>{inner}</Scan></Fibics>"


def fei_xml(unit, row, column):
    return (
        f'{XML}<Metadata xmlns="http://schemas.fei.com/Metadata/v1"><BinaryResult><PixelSize>'
        f'<X unit="{unit}">{column}</X><Y unit="{unit}">{row}</Y>'
        "</PixelSize></BinaryResult></Metadata>"
    )


def gatan(unit, column, row):
    raw = f"{unit}\0".encode("utf-16-le")
    units = [(code, "B", len(raw), raw) for code in (65003, 65004)]
    return [*units, (65009, "d", 1, column), (65010, "d", 1, row)]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([text_tag(34118, zeiss("AP_PIXEL_SIZE", "Pixel Size = 3.5 nm"))], (3.5, 3.5)),
        (
            [
                text_tag(
                    34118,
                    zeiss(
                        "AP_PIXEL_SIZE",
                        "Pixel Size = 7 nm",
                        "AP_IMAGE_PIXEL_SIZE",
                        "Image Pixel Size = 0.0035 µm",
                    ),
                    "cp1252",
                )
            ],
            (3.5, 3.5),
        ),
        ([text_tag(34680, "[Scan]\r\nPixelWidth=4e-09\r\nPixelHeight=5e-09\r\n")], (5, 4)),
        (
            [
                text_tag(
                    34682,
                    "[Beam]\r\nScan=IScan\r\n[IScan]\r\nPixelWidth=4e-09\r\nPixelHeight=5e-09\r\n"
                    "[EScan]\r\nPixelWidth=1e-09\r\nPixelHeight=1e-09\r\n",
                )
            ],
            (5, 4),
        ),
        ([text_tag(34682, fei_xml("m", 5e-9, 4e-9))], (5, 4)),
        ([text_tag(34683, fei_xml("nm", 5, 4))], (5, 4)),
        (
            [
                text_tag(
                    34683,
                    '<FeiImage><pixelWidth unit="um">0.004</pixelWidth>'
                    '<pixelHeight unit="um">0.005</pixelHeight></FeiImage>',
                )
            ],
            (5, 4),
        ),
        (gatan("nm", 4, 5), (5, 4)),
        (gatan("µm", 0.004, 0.005), (5, 4)),
        ([text_tag(51023, fibics("um", 0.004, 0, 0, 0.005))], (5, 4)),
        ([text_tag(51023, fibics("nm", 0, -4, 5, 0))], (5, 4)),
        ([(37706, "B", len(tvips()), tvips())], (5, 4)),
        ([text_tag(50431, "[MAIN]\r\nPixelSizeX=4e-9\r\nPixelSizeY=5e-9\r\n")], (5, 4)),
        ([text_tag(50431, "[MAIN]\r\nPixelSizeX=4e-9\r\n")], (4, 4)),
    ],
    ids=[
        "zeiss scan",
        "zeiss",
        "fei",
        "fei ions",
        "fei xml 34682",
        "fei xml 34683",
        "phenom",
        "gatan",
        "gatan µm",
        "fibics",
        "fibics turned",
        "tvips",
        "tescan",
        "tescan square",
    ],
)
def test_tags_of_vendors(tmp_path, tags, expected):
    path = write(tmp_path / "a.tif", *tags, resolution=(72, 72), resolutionunit="INCH")
    pixel, _, notes = sizes(path)
    assert pixel == pytest.approx(expected)
    assert not notes


def test_metamorph(tmp_path):
    xml = (
        '<MetaData><PlaneInfo><prop id="spatial-calibration-state" type="bool" value="on"/>'
        '<prop id="spatial-calibration-x" type="float" value="0.004"/>'
        '<prop id="spatial-calibration-y" type="float" value="0.005"/>'
        '<prop id="spatial-calibration-units" type="string" value="um"/></PlaneInfo></MetaData>'
    )
    path = write(tmp_path / "a.tif", description=xml, software="MetaSeries")
    assert open_source(path).pixel_size == pytest.approx((5, 4))


@pytest.mark.parametrize("pages", [1, 2])
def test_olympus_points_from_any_page(tmp_path, pages):
    path = tmp_path / "a.tif"
    placeholder = 0xDEAD
    with tifffile.TiffWriter(path) as writer:
        for page in range(pages):
            tags = [(33560, "I", 1, placeholder, True)] if page == pages - 1 else []
            writer.write(np.zeros((20, 30), np.uint8), extratags=tags, metadata=None)
    raw = bytearray(path.read_bytes())
    place = raw.find(struct.pack("<I", placeholder))
    raw[place : place + 4] = struct.pack("<I", len(raw))
    raw += struct.pack("<4s6xhhhhh6x32sH", b"SIS0", 0, 0, 1, 1, 100, b"", 1)
    raw += struct.pack("<hhI", 1, 1, len(raw) + 8)
    raw += struct.pack("<10xhdd8xd2x34s32s", -9, 4.0, 5.0, 6e5, b"", b"")
    path.write_bytes(bytes(raw))
    assert open_source(path).pixel_size == pytest.approx((5, 4))


@pytest.mark.parametrize(
    ("ending", "text", "encoding"),
    [
        (".txt", "[SemImageFile]\r\nSampleName=x\r\nPixelSize=4.0\r\n", "utf-16"),
        (".txt", "[TemImageFile]\r\nSampleName=\xb5\r\nPixelSize=4.0\r\n", "latin-1"),
        (".txt", "$CM_FORMAT JEOL-SEM\n$$SM_MICRON_BAR 250\n$$SM_MICRON_MARKER 1um\n", "ascii"),
        ("-tif.hdr", "[MAIN]\r\nPixelSizeX=4e-9\r\n", "utf-8-sig"),
        (".hdr", "[MAIN]\r\nPixelSizeX=4e-9\r\n", "ascii"),
    ],
    ids=["hitachi", "hitachi latin", "jeol", "tescan tif", "tescan"],
)
def test_texts_beside_an_image(tmp_path, ending, text, encoding):
    path = write(tmp_path / "a.tif")
    assert open_source(path).pixel_size is None
    (tmp_path / f"a{ending}").write_text(text, encoding, newline="")
    assert open_source(path).pixel_size == pytest.approx((4, 4))


def test_other_texts_beside_an_image_state_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("PixelSize=4.0\nsee the lab book\n")
    (tmp_path / "a.hdr").mkdir()
    assert sizes(write(tmp_path / "a.tif")) == (None, None, ())


def test_an_image_of_the_longest_name_is_read(tmp_path):
    assert open_source(write(tmp_path / f"{'n' * 251}.tif")).pixel_size is None


def test_damaged_tags_of_vendors_are_told(tmp_path):
    path = write(tmp_path / "a.tif", text_tag(51023, "<Fibics><Scan>"))
    pixel, _, notes = sizes(path)
    assert pixel is None
    assert "Fibics" in notes[0]
