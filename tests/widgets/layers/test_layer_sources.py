from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image, Labels

from napari_affmae.errors import DataError
from napari_affmae.widgets.layers.layer_sources import (
    LayerImage,
    LayerLabels,
    layer_geometry,
    step_sizes,
)


def stack(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_every_axis_before_rows_and_columns_counts_planes() -> None:
    data = stack(2, 3, 70, 80, dtype=np.uint16)
    source = LayerImage(Image(data))
    assert (source.n_planes, source.plane_shape, source.n_channels) == (6, (2, 3), 1)
    np.testing.assert_array_equal(source.read(4, slice(5, 9))[0], data[1, 1, 5:9])


def test_rgb_and_rgba_have_three_channels() -> None:
    for samples in (3, 4):
        data = stack(5, 70, 80, samples)
        source = LayerImage(Image(data, rgb=True))
        assert (source.n_planes, source.n_channels) == (5, 3)
        np.testing.assert_array_equal(source.read(2), data[2, ..., :3].transpose(2, 0, 1))
    assert LayerImage(Image(data, rgb=True), channels=(1,)).n_channels == 1


def test_of_a_multiscale_layer_the_full_resolution_is_read() -> None:
    data = stack(90, 100)
    source = LayerImage(Image([data, data[::2, ::2]], multiscale=True))
    assert (source.height, source.width) == (90, 100)


def test_a_dask_layer_is_read_chunk_by_chunk() -> None:
    computed = []

    def chunk(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info:
            computed.append(block_info[0]["chunk-location"])
        return block

    data = da.zeros((8, 64, 64), chunks=(1, 64, 64), dtype=np.uint8).map_blocks(
        chunk, dtype=np.uint8
    )
    layer = Image(data, contrast_limits=(0, 255))
    computed.clear()
    source = LayerImage(layer)
    assert computed == []
    source.read(5)
    assert computed == [(5, 0, 0)]


def test_a_zarr_layer_is_read(tmp_path: Any) -> None:
    data = stack(3, 64, 70)
    array = zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(1, 64, 70))
    np.testing.assert_array_equal(LayerImage(Image(array)).read(1)[0], data[1])


@pytest.mark.parametrize(
    ("units", "scale", "size"),
    [
        (("nm", "nm"), (4, 4.5), (4, 4.5)),
        (("um", "um"), (0.004, 0.008), (4, 8)),
        (("pixel", "pixel"), (2, 2), None),
    ],
)
def test_pixel_sizes_are_in_nanometres(units: Any, scale: Any, size: Any) -> None:
    assert LayerImage(Image(stack(70, 70), units=units, scale=scale)).pixel_size == size


@pytest.mark.parametrize(
    ("geometry", "sizes"),
    [
        ({"units": "nm", "affine": np.diag([1, 2, 2, 1])}, [30, 16, 16]),
        ({"units": "nm", "rotate": 20}, [30, 8, 8]),
        ({"units": "nm", "shear": (0, 0, 0.5)}, [30, 8 / 1.25**0.5, 8 * 1.25**0.5]),
        ({"units": ("um", "nm", "nm"), "affine": np.diag([0.001, 1, 1, 1])}, [30, 8, 8]),
        ({"units": ("pixel", "nm", "nm")}, [None, 8, 8]),
    ],
)
def test_sizes_are_those_after_all_that_places_a_layer(geometry: Any, sizes: Any) -> None:
    layer = Image(stack(3, 64, 64), scale=(30, 8, 8), **geometry)
    assert step_sizes(layer_geometry(layer)) == pytest.approx(sizes, abs=1e-6)
    assert LayerImage(layer).pixel_size == pytest.approx(sizes[1:], abs=1e-6)


def test_a_stroke_raises_the_revision_of_its_plane_alone() -> None:
    layer = Labels(np.zeros((4, 64, 64), np.uint8))
    source = LayerLabels(layer)
    assert [source.revision(plane) for plane in range(4)] == [0] * 4
    layer.paint((2, 10, 10), 1)
    assert [source.revision(plane) > 0 for plane in range(4)] == [False, False, True, False]
    assert source.read(2)[0, 10, 10] == 1
    before = source.revision(2)
    layer.undo()
    assert source.revision(2) > before
    assert source.read(2)[0, 10, 10] == 0
    assert source.revision(0) == 0


def test_a_fill_through_all_planes_raises_all_revisions() -> None:
    layer = Labels(np.zeros((3, 64, 64), np.uint8))
    layer.n_edit_dimensions = 3
    source = LayerLabels(layer)
    layer.fill((1, 5, 5), 2)
    assert all(source.revision(plane) for plane in range(3))


def test_labels_of_an_image_without_planes_have_one_plane() -> None:
    layer = Labels(np.zeros((64, 64), np.uint8))
    source = LayerLabels(layer)
    layer.paint((5, 5), 1)
    assert source.revision(0) == 1


def test_replaced_labels_are_read_and_other_shapes_refused() -> None:
    layer = Labels(np.zeros((2, 64, 64), np.uint8))
    source = LayerLabels(layer)
    layer.data = np.ones((2, 64, 64), np.uint8)
    assert source.revision(0) == 1
    assert source.read(1).min() == 1
    layer.data = np.ones((2, 64, 65), np.uint8)
    with pytest.raises(DataError, match="have changed from shape"):
        source.read(1)


def test_geometry_places_a_layer_on_another() -> None:
    layer = Image(
        stack(3, 64, 64),
        scale=(30, 4, 4),
        translate=(0, 100, 50),
        units="nm",
        axis_labels=("z", "y", "x"),
    )
    other = Labels(np.zeros((3, 64, 64), np.uint8), **layer_geometry(layer))
    np.testing.assert_array_equal(other.extent.world, layer.extent.world)
    assert other.units == layer.units
    assert other.axis_labels == layer.axis_labels
