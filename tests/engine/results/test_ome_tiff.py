import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_affmae.config import LabelClass
from napari_affmae.data import open_source
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.origin import Origin, why_not_of
from napari_affmae.errors import UnwritableError
from napari_affmae.files import TEMPORARY, lock_path, temporary_path

ORIGIN = Origin(image="01", model="02", tile=64, overlap=0.25, precision="fp32")


@pytest.mark.parametrize("shape", [(3, 50, 70), (1, 50, 70), (2, 4, 33, 20)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_planes_come_back_with_axes_and_pixel_size(
    tmp_path: Path, shape: tuple[int, ...], dtype: type
) -> None:
    stack = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    path = tmp_path / "deep" / "labels.tif"
    with PlaneFile(path, len(stack), (5.0, 4.5), 30.0) as file:
        for plane in stack:
            file.write(plane)
    with tifffile.TiffFile(path) as written:
        assert written.is_ome
        series = written.series[0]
        assert series.axes == ("ZYX" if len(shape) == 3 else "ZCYX")[-series.ndim :]
        assert written.pages[0].compression != 1
        assert 'PhysicalSizeX="4.5"' in (written.ome_metadata or "")
        assert 'PhysicalSizeY="5.0"' in (written.ome_metadata or "")
        assert 'PhysicalSizeZ="30.0"' in (written.ome_metadata or "")
        found = series.asarray()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.reshape(shape), stack)


@pytest.mark.parametrize(
    ("axes", "shape", "written"),
    [
        ("TZYX", (2, 3, 20, 30), "TZYX"),
        ("ZTYX", (2, 3, 20, 30), "ZTYX"),
        ("ZCYX", (2, 3, 20, 30), "ZYX"),
        ("TYX", (2, 20, 30), "TYX"),
        ("IIYX", (2, 3, 20, 30), "TZYX"),
        ("ABTYX", (2, 3, 2, 20, 30), "ZYX"),
        ("YX", (20, 30), "YX"),
    ],
)
def test_the_axes_of_planes_stay(
    tmp_path: Path, axes: str, shape: tuple[int, ...], written: str
) -> None:
    source = open_source(np.zeros(shape, np.uint8), axes=None if "II" in axes else axes)
    with PlaneFile.like(tmp_path / "labels.tif", source) as file:
        for number in range(source.n_planes):
            file.write(np.full((20, 30), number, np.uint8))
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        (series,) = file.series
        assert series.axes == written
        numbers = np.arange(source.n_planes)
        np.testing.assert_array_equal(series.asarray()[..., 0, 0].ravel(), numbers)


CLASSES = (
    LabelClass(value=1, name="membrane", color="#ff8000"),
    LabelClass(value=2, name="mitochondria", color="#0010ff"),
)


def test_labels_keep_the_names_and_colours_of_their_classes(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 3, (2, 20, 30)).astype(np.uint8)
    path = tmp_path / "labels.tif"
    with PlaneFile(path, 2, origin=ORIGIN, classes=CLASSES) as file:
        for plane in stack:
            file.write(plane)
    with tifffile.TiffFile(path) as written:
        for page in written.pages:  # ImageJ makes no stack of pages that differ in this
            assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
            assert page.tags[320].value.reshape(3, 256)[:, 1].tolist() == [65535, 128 * 257, 0]
        np.testing.assert_array_equal(written.asarray(), stack)
    with Image.open(path) as shown:
        np.testing.assert_array_equal(np.asarray(shown), stack[0])
    with open_source(path) as source:
        assert source.classes == CLASSES
        np.testing.assert_array_equal(source.read(1)[0], stack[1])


def test_labels_of_more_than_8_bits_have_no_table_of_colours(tmp_path: Path) -> None:
    with PlaneFile(tmp_path / "labels.tif", 1, classes=CLASSES) as file:
        file.write(np.ones((20, 30), np.uint16))
    with tifffile.TiffFile(tmp_path / "labels.tif") as written:
        assert 320 not in written.pages[0].tags
    with open_source(tmp_path / "labels.tif") as source:
        assert source.classes == CLASSES


def test_probabilities_are_channels_with_the_names_and_colours_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "probabilities.tif"
    with PlaneFile(path, 3, classes=CLASSES) as file:
        for _ in range(3):
            file.write(np.ones((2, 20, 30), np.float32))
    with tifffile.TiffFile(path) as written:
        assert written.series[0].axes == "ZCYX"
        pixels = tifffile.xml2dict(written.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [channel["Name"] for channel in pixels["Channel"]] == ["membrane", "mitochondria"]
    colors = [channel["Color"].to_bytes(4, "big", signed=True) for channel in pixels["Channel"]]
    assert [color.hex() for color in colors] == ["ff8000ff", "0010ffff"]
    with open_source(path) as source:
        assert source.classes == ()


def write_one_of_two(path: Path) -> None:
    with PlaneFile(path, 2) as file:
        file.write(np.zeros((20, 20), np.uint8))
        raise InterruptedError


def test_a_file_that_is_not_complete_does_not_appear(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    path.write_bytes(b"what was there")
    with pytest.raises(InterruptedError):
        write_one_of_two(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.tif"]
    assert path.read_bytes() == b"what was there"


def test_one_process_at_a_time_writes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    with PlaneFile(path, 1) as first:
        with (
            pytest.raises(UnwritableError, match=r"another process is writing .*labels\.tif"),
            PlaneFile(path, 1),
        ):
            pass
        first.write(np.ones((20, 20), np.uint8))
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.tif"]
    assert tifffile.imread(path).all()


def test_what_a_kill_left_is_removed_and_planted_links_are_not_followed(tmp_path: Path) -> None:
    path, mine = tmp_path / "labels.tif", tmp_path / "thesis.txt"
    mine.write_text("mine")
    temporary_path(path).write_text("half a file")
    try:
        for name in (temporary_path(path), lock_path(path), tmp_path / ".labels.tif.part"):
            name.symlink_to(mine)
    except OSError:
        pytest.skip("needs the right to make links")
    with PlaneFile(path, 1) as file:
        file.write(np.zeros((20, 20), np.uint8))
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"labels.tif", "thesis.txt", ".labels.tif.part"}
    assert mine.read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system which file it is")
def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = [], os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        assert len(synced) == 2 or not (tmp_path / "labels.tif").exists()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with PlaneFile(tmp_path / "labels.tif", 1) as file:
        file.write(np.zeros((20, 20), np.uint8))
    assert TEMPORARY.fullmatch(synced[0].name)
    assert synced[1:] == [tmp_path]


def test_names_may_be_long_and_need_not_be_unicode(tmp_path: Path) -> None:
    names = ["x" * 251 + ".tif"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"caf\xe9.tif"))
    for name in names:
        with PlaneFile(tmp_path / name, 1) as file:
            file.write(np.ones((20, 20), np.uint8))
        assert tifffile.imread(tmp_path / name).all()
    with pytest.raises(UnwritableError, match="too long"), PlaneFile(tmp_path / ("x" * 256), 1):
        pass


@pytest.fixture
def result(tmp_path: Path) -> Path:
    with PlaneFile(tmp_path / "labels.tif", 3, origin=ORIGIN) as file:
        for number in range(3):
            file.write(np.full((20, 30), number, np.uint8))
    return tmp_path / "labels.tif"


IMAGE = open_source(np.zeros((3, 20, 30), np.uint8), axes="ZYX")


def test_a_file_says_what_it_was_made_from(result: Path) -> None:
    assert why_not_of(result, IMAGE, ORIGIN) is None
    with tifffile.TiffFile(result) as file:
        assert file.series[0].shape == (3, 20, 30)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "03"}, "another image"),
        ({"model": "03"}, "another model"),
        ({"tile": 128}, "another size of tiles"),
        ({"overlap": 0.5}, "another overlap"),
    ],
)
def test_a_file_of_another_origin_is_told(
    result: Path, change: dict[str, object], words: str
) -> None:
    assert words in (why_not_of(result, IMAGE, ORIGIN.model_copy(update=change)) or "")


def test_a_file_that_is_cut_short_or_says_nothing_is_told(result: Path) -> None:
    whole = result.read_bytes()
    # The last plane's data lie before the last of the file's own structures, or after it.
    for length in (0, 4, len(whole) // 2, len(whole) - 8):
        result.write_bytes(whole[:length])
        assert why_not_of(result, IMAGE, ORIGIN) is not None
    result.write_bytes(whole)
    four = open_source(np.zeros((4, 20, 30), np.uint8), axes="ZYX")
    assert why_not_of(result, four, ORIGIN) == "it is not complete"
    with PlaneFile(result, 1) as file:
        file.write(np.zeros((20, 30), np.uint8))
    assert "does not say" in (why_not_of(result, IMAGE, ORIGIN) or "")
    result.write_bytes(whole.replace(b">64<", b">6x<"))
    assert "does not say" in (why_not_of(result, IMAGE, ORIGIN) or "")


def test_nothing_written_leaves_nothing(tmp_path: Path) -> None:
    with PlaneFile(tmp_path / "probabilities.tif", 2):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of Unix")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from pathlib import Path
import numpy as np
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.origin import Origin, why_not_of
from napari_affmae.errors import UnwritableError
from napari_affmae.files import TEMPORARY, lock_path, temporary_path
from napari_affmae.errors import DiskFullError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with PlaneFile(Path({str(tmp_path / "a.tif")!r}), 1) as file:
        file.write(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8))
except DiskFullError:
    raise SystemExit(5)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 5
    assert not list(tmp_path.iterdir())
