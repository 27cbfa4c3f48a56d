"""Predictions along three directions: the average of what each direction gives by itself."""

from contextlib import closing

import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.config import SegmentConfig
from napari_affmae.data import NormalizedSource, open_source, synthetic_em
from napari_affmae.data.sources.turned import TurnedSource
from napari_affmae.engine import Segmenter, segment
from napari_affmae.engine.events import BlockDone, Notice, TilesDone
from napari_affmae.engine.inference.blending import Wanted, class_values
from napari_affmae.engine.inference.tiles import Region
from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.store.metadata import read_metadata
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.engine.volumes.segmenting import VolumeSegmenter
from napari_affmae.errors import DataError, UnwritableError

CONFIG = SegmentConfig(device="cpu", tile=64, probabilities=True, three_directions=True)
SIZES = BlockSizes(chunk=8, side=24, depth=8)
SHAPE = (4, 66, 20)


@pytest.fixture(scope="module")
def stack():
    source = open_source(synthetic_em(SHAPE, seed=3)[0], axes="ZYX", name="stack")
    source.pixel_size, source.plane_distance = (8.0, 8.0), 8.0
    return source


@pytest.fixture(scope="module")
def model(finetuned):
    return finetuned[0]


@pytest.fixture(scope="module")
def expected(stack, model):
    """Mean of the probabilities of all planes along each axis, which are float16 on the disk."""
    segmenter = Segmenter(model, CONFIG)
    known = segmenter.normalize(stack)
    wanted = Wanted(class_values(segmenter.metadata.classes), "float32")
    total = 0
    volume = np.stack([stack.read(plane)[0] for plane in range(stack.n_planes)])
    for axes in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        turned = open_source(volume.transpose(axes), axes="ZYX", name="turned")
        source = NormalizedSource(turned, known.config, {turned.fingerprint(): known.statistics})
        planes = []
        for plane in range(turned.n_planes):
            whole = Region([plane], slice(0, turned.height), slice(0, turned.width))
            with segmenter.predictor.reader(source, whole) as reader:
                bands = list(segmenter.predictor.region(reader, wanted))
            rows = [band.probabilities for band in bands if band.labels is not None]
            planes.append(np.concatenate(rows, axis=1))
        seen = np.stack(planes, axis=1).astype(np.float16).astype(np.float32)
        total = total + seen.transpose(0, *(1 + np.argsort(axes)))
    return total / 3


def volumes_of(model, config=CONFIG, **options):
    return VolumeSegmenter(Origins(model, config), config, **options)


@pytest.mark.parametrize("along", ["Y", "X"])
def test_a_turned_volume_is_the_transposed_one(along, monkeypatch):
    """Also where it is read in several pieces."""
    for name, size in (("_MOST_PLANES", 3), ("_ROWS", 4), ("_COLUMNS", 5)):
        monkeypatch.setattr(f"napari_affmae.data.sources.turned.{name}", size)
    volume = np.random.default_rng(0).integers(0, 255, (11, 2, 13, 17), np.uint8)
    source = open_source(volume, axes="ZCYX", name="volume")
    source.pixel_size, source.plane_distance = (4.0, 5.0), 6.0
    turned = TurnedSource(source, along)
    whole = volume.transpose((2, 1, 0, 3) if along == "Y" else (3, 1, 0, 2))
    assert (turned.n_planes, turned.height, turned.width) == (len(whole), *whole.shape[2:])
    assert turned.pixel_size == ((6.0, 5.0) if along == "Y" else (6.0, 4.0))
    assert turned.plane_distance == (4.0 if along == "Y" else 5.0)
    for plane, part in enumerate(whole):
        np.testing.assert_array_equal(turned.read(plane), part)
        np.testing.assert_array_equal(
            turned.read(plane, slice(3, 9), slice(4, 12)), part[:, 3:9, 4:12]
        )


@pytest.mark.parametrize("sizes", [BlockSizes(), SIZES, BlockSizes(chunk=15, side=30, depth=4)])
def test_labels_are_those_of_the_average_whatever_the_blocks(
    stack, model, expected, tmp_path, sizes
):
    target = tmp_path / "a.zarr"
    events = list(volumes_of(model, sizes=sizes).segment(stack, target))
    tiles = [event for event in events if isinstance(event, TilesDone)]
    assert [event.done for event in tiles] == [*range(1, tiles[0].total + 1)]
    assert not any(isinstance(event, Notice) and "nm apart" in event.message for event in events)
    values = np.array([item.value for item in read_metadata(model / "model.safetensors").classes])
    labels = zarr.open_array(target / "0", mode="r")[:]
    np.testing.assert_array_equal(labels, values[expected.argmax(0)])
    chances = zarr.open_array(tmp_path / "a_probabilities.zarr" / "0", mode="r")[:]
    np.testing.assert_allclose(chances / 255, expected, atol=0.502 / 255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "a_probabilities.zarr"]


def test_a_tiff_has_the_same_labels_and_a_closed_run_goes_on(stack, model, expected, tmp_path):
    target = tmp_path / "a.tif"
    volumes = volumes_of(model, sizes=SIZES)
    with closing(volumes.segment(stack, target)) as run:
        total = next(event.total for event in run if isinstance(event, TilesDone))
        next(event for event in run if isinstance(event, TilesDone) and event.done > total // 2)
    with closing(volumes.segment(stack, target)) as run:
        rest = next(event.total for event in run if isinstance(event, TilesDone))
        assert rest < total
        next(event for event in run if isinstance(event, BlockDone))
    last = list(volumes.segment(stack, target))
    assert not any(isinstance(event, TilesDone) for event in last)
    found = tifffile.imread(tmp_path / "a_probabilities.tif")
    np.testing.assert_array_equal(np.moveaxis(found, 1, 0), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "a_probabilities.tif"]


def test_a_run_that_does_nothing_leaves_nothing(stack, model, tmp_path):
    for name in ("a.zarr", "a.tif"):
        with closing(volumes_of(model).segment(stack, tmp_path / name)) as events:
            next(event for event in events if isinstance(event, TilesDone))
    assert list(tmp_path.iterdir()) == []


def test_one_direction_is_another_result(stack, model, tmp_path):
    target = tmp_path / "a.zarr"
    with closing(volumes_of(model, sizes=SIZES).segment(stack, target)) as events:
        next(event for event in events if isinstance(event, TilesDone) and event.done > 20)
    one = CONFIG.model_copy(update={"three_directions": False})
    with pytest.raises(UnwritableError, match="another number of directions"):
        list(volumes_of(model, one, sizes=SIZES).segment(stack, target))


def test_what_has_no_three_directions_is_refused(stack, model, tmp_path):
    plane = open_source(stack.read(0)[0], axes="YX", name="plane")
    times = open_source(np.stack([stack.read(0)[0]] * 3), axes="TYX", name="times")
    for source in (plane, times):
        with pytest.raises(DataError, match=f"{source.name} is no volume"):
            list(volumes_of(model).segment(source, tmp_path / "a.zarr"))
    with pytest.raises(ValueError, match="by segment_to_file alone"):
        list(segment(stack, model, CONFIG))


def test_unequal_sizes_are_told(stack, model, tmp_path):
    source = open_source(np.stack([stack.read(0)[0]] * 3), axes="ZYX", name="thick")
    source.pixel_size, source.plane_distance = (8.0, 8.0), 40.0
    with closing(volumes_of(model).segment(source, tmp_path / "a.zarr")) as events:
        notices = [event.message for event in events if isinstance(event, Notice)]
    assert any("planes are 40 nm apart and pixels 8 nm" in message for message in notices)
