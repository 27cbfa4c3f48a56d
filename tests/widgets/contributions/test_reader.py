"""Files that napari opens through the plugin."""

from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
from napari._app_model import get_app_model
from qtpy.QtWidgets import QFileDialog


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 50, 60)).astype(np.float32)


def test_mrc(viewer: Any, volume: np.ndarray, tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "em.mrc", volume) as file:
        file.voxel_size = 80.0  # Angstrom
    (layer,) = viewer.open(tmp_path / "em.mrc", plugin=None)
    assert isinstance(layer.data, da.Array)
    np.testing.assert_array_equal(layer.data, volume)
    np.testing.assert_array_equal(layer.data[2, 10:20, 5:9], volume[2, 10:20, 5:9])
    assert tuple(layer.scale[-2:]) == (8, 8)
    assert str(layer.units[-1]) == "nanometer"


def test_more_than_fits_the_memory(viewer: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.rec"
    with mrcfile.new_mmap(path, (2, 1000, 1000), mrc_mode=0) as file:
        file.data[1, 5, 7] = 100
    planes = 200_000
    with path.open("r+b") as file:  # the rest of the file takes no disk
        file.seek(8)
        file.write(np.int32(planes).tobytes())
        file.truncate(1024 + planes * 1_000_000)
    (layer,) = viewer.open(path, plugin=None)
    assert layer.data.shape == (planes, 1000, 1000)
    viewer.dims.set_point(0, 1)
    assert layer.get_value((1, 5, 7)) == 100


def test_colours_and_channels_of_hdf5(viewer: Any, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (3, 3, 20, 30), dtype=np.uint8)
    for name, data in (("colours", colours), ("channels", colours[:, :2])):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            stored = file.create_dataset("raw", data=data)
            for dimension, label in zip(stored.dims, "zcyx", strict=True):
                dimension.label = label
    (layer,) = viewer.open(tmp_path / "colours.h5", plugin="napari-affmae")
    assert layer.rgb
    np.testing.assert_array_equal(layer.data, np.moveaxis(colours, 1, -1))
    first, second = viewer.open(tmp_path / "channels.h5", plugin="napari-affmae")
    assert (first.name, second.name) == ("channels channel 0", "channels channel 1")
    np.testing.assert_array_equal(second.data, colours[:, 1])


def test_the_menu_opens_what_others_would_read_whole(
    viewer: Any, volume: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "em.tif", volume, photometric="minisblack")
    monkeypatch.setattr(
        QFileDialog, "getOpenFileNames", lambda *_, **__: ([str(tmp_path / "em.tif")], "")
    )
    get_app_model().commands.execute_command("napari-affmae.open_images").result()
    (layer,) = viewer.layers
    assert isinstance(layer.data, da.Array)
    np.testing.assert_array_equal(layer.data, volume)
