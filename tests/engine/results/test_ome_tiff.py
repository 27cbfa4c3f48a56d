import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_affmae.data import open_source
from napari_affmae.engine.results.ome_tiff import PlaneFile


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
