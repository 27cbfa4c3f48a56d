"""Tiles on their way over the device, compared with a definition in NumPy."""

import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from napari_affmae.config import NormalizationConfig
from napari_affmae.data import normalize_sources, open_source
from napari_affmae.data.sources.source import shifted
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.inference.blending import Wanted
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.inference.tiles import Grid, Place, Region, read_tile, tile_window

SIZES = [(64, 64), (65, 64), (200, 333), (63, 500), (1, 1), (64, 40), (129, 65)]
CHANCES = Wanted(np.array([3, 7, 250], np.uint8), "float32")
TWO = Wanted(np.array([0, 1], np.uint8), "float32")


class Waves(nn.Module):
    """A network whose prediction depends on where in the tile a pixel lies."""

    num_classes = 3

    def forward(self, tiles):
        waves = tiles.cumsum(2).cumsum(3)
        return torch.cat([waves, tiles * 3, tiles - waves], 1)


class Pixelwise(nn.Module):
    """A network that looks at single pixels: where tiles lie cannot matter."""

    num_classes = 2

    def forward(self, tiles):
        return torch.cat([torch.zeros_like(tiles), tiles], 1)


class Moody(nn.Module):
    """A network that is sure of one class, and then of the other."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, tiles):
        self.seen.append(tiles)
        logits = torch.full((len(tiles), 2, *tiles.shape[2:]), -100.0)
        logits[:, len(self.seen) % 2] = 100.0
        return logits


def predictor_of(module, overlap=0.25, batch=1):
    return Predictor(module, Runtime(plan_device("cpu")), 64, overlap, batch)


def normalized(array, **config):
    source = open_source(array, axes="ZYX", name="stack")
    return normalize_sources([source], NormalizationConfig(**config))[0]


def noise(shape, dtype=np.uint8):
    values = np.random.default_rng(1).normal(size=shape)
    return (values * 1000 if np.dtype(dtype).kind == "f" else values * 20 + 100).astype(dtype)


def defined(module, source, planes, overlap):
    """Average all tiles over whole planes, as the documentation says."""
    grid = Grid(source.height, source.width, 64, overlap)
    size = (max(64, source.height), max(64, source.width))
    window = np.outer(tile_window(64), tile_window(64))
    out = []
    for plane in planes:
        sums = np.zeros((module.num_classes, *size), np.float32)
        along, across = (np.zeros(n, np.float32) for n in size)
        for row in grid.rows:
            along[row : row + 64] += tile_window(64)
        for column in grid.columns:
            across[column : column + 64] += tile_window(64)
        for row in grid.rows:
            for column in grid.columns:
                tile = torch.from_numpy(read_tile(source.read, Place(plane, row, column), 64))
                chances = module(tile[None]).softmax(1)[0].numpy()
                sums[:, row : row + 64, column : column + 64] += chances * window
        average = sums / np.outer(along, across)
        out.append(average[:, : source.height, : source.width])
    return np.stack(out)


def predicted(predictor, source, planes, rows=None, columns=None, wanted=CHANCES):
    """Put the bands together, and check that they follow each other."""
    rows = rows or slice(0, source.height)
    columns = columns or slice(0, source.width)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    labels = np.zeros((len(planes), *size), wanted.values.dtype)
    chances = np.empty((len(planes), len(wanted.values), *size), wanted.probabilities)
    next_rows, counted = dict.fromkeys(planes, rows.start), 0
    region, told = Region(planes, rows, columns), []
    with predictor.reader(source, region) as reader:
        for band in predictor.region(reader, wanted, launched=lambda: told.append(1)):
            counted += 1
            left = not told
            assert (band.done, band.total) == (counted, predictor.grid_of(source).count(region))
            if band.labels is None:
                continue
            assert band.start == next_rows[band.plane]
            next_rows[band.plane] = band.rows.stop
            plane, inside = planes.index(band.plane), shifted(band.rows, -rows.start)
            labels[plane, inside] = band.labels
            chances[plane, :, inside] = band.probabilities
    assert set(next_rows.values()) == {rows.stop}
    assert told == [1]
    assert not left  # others may begin before the last tiles are back
    assert counted == predictor.grid_of(source).count(region)
    return labels, chances


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.float32])
def test_a_region_has_the_bits_of_the_definition(overlap, batch, dtype):
    source = normalized(noise((3, 150, 333), dtype))
    module = Waves()
    expected = defined(module, source, [0, 1, 2], overlap)
    values = CHANCES.values[expected.argmax(1)]
    predictor = predictor_of(module, overlap, batch)
    labels, chances = predicted(predictor, source, [0, 1, 2])
    np.testing.assert_array_equal(chances, expected)
    np.testing.assert_array_equal(labels, values)
    for rows, columns in (((0, 70), (0, 333)), ((70, 150), (5, 44)), ((63, 64), (200, 333))):
        part = (slice(*rows), slice(*columns))
        labels, chances = predicted(predictor, source, [2, 1], *part)
        np.testing.assert_array_equal(chances, expected[[2, 1], :, *part])
        np.testing.assert_array_equal(labels, values[[2, 1], *part])


@pytest.mark.parametrize("config", [{"invert": True}, {"clahe": True}, {"low": 10, "high": 80}])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_values_are_normalised_on_the_device_as_they_are_read(config, dtype):
    source = normalized(noise((1, 70, 90), dtype), **config)
    region = Region([0], slice(0, 70), slice(0, 90))
    grid = Grid(70, 90, 64, 0.25)
    with predictor_of(Pixelwise()).reader(source, region) as reader:
        tiles = reader.take(10)
        images = reader.images(tiles, torch.device("cpu"))
        assert reader.take(1) == []
    assert [place for place, _ in tiles] == list(grid.places(region))
    for (place, _), image in zip(tiles, images, strict=True):
        np.testing.assert_array_equal(image, read_tile(source.read, place, 64))


def test_channels_are_normalised_each_by_itself():
    colours = open_source(noise((2, 3, 70, 90), np.uint16), axes="ZCYX", name="colours")
    source = normalize_sources([colours], NormalizationConfig())[0]
    assert len(set(source.statistics.mean)) == 3
    whole = Region([0, 1], slice(0, 70), slice(0, 90))
    with predictor_of(Pixelwise()).reader(source, whole) as reader:
        tiles = reader.take(8)
        images = reader.images(tiles, torch.device("cpu"))
    for (place, _), image in zip(tiles, images, strict=True):
        np.testing.assert_array_equal(image, read_tile(source.read, place, 64))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_size_is_covered_exactly(size, overlap, batch):
    source = normalized(noise((1, *size)))
    _, chances = predicted(predictor_of(Pixelwise(), overlap, batch), source, [0], wanted=TWO)
    foreground = 1 / (1 + np.exp(-source.read(0)[0]))
    np.testing.assert_allclose(chances[0], np.stack([1 - foreground, foreground]), atol=1e-6)


def test_neighbouring_tiles_that_disagree_blend_without_a_seam():
    _, chances = predicted(predictor_of(Moody()), normalized(noise((1, 64, 112))), [0], wanted=TWO)
    row = chances[0, 1, 30]
    assert row[0] == pytest.approx(1)
    assert row[-1] == pytest.approx(0)
    assert np.abs(np.diff(row)).max() < 0.2
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-6)


def test_small_planes_are_mirrored_to_a_tile():
    source, network = normalized(noise((1, 64, 40))), Moody()
    predicted(predictor_of(network, 0), source, [0], wanted=TWO)
    np.testing.assert_array_equal(network.seen[0][0, :, :, 40:], source.read(0)[:, :, 38:14:-1])


def test_batches_go_from_plane_to_plane():
    source, network = normalized(noise((7, 64, 64))), Moody()
    predicted(predictor_of(network, batch=3), source, list(range(7)), wanted=TWO)
    assert [len(tiles) for tiles in network.seen] == [3, 3, 1]


@pytest.mark.parametrize("size", [(64, 64), (50, 64), (64, 33), (1, 1)])
def test_planes_of_a_tile_have_the_bits_of_the_definition(size):
    """They are finished together."""
    source, module = normalized(noise((7, *size))), Waves()
    expected = defined(module, source, range(7), 0.25)
    labels, chances = predicted(predictor_of(module, batch=3), source, list(range(7)))
    np.testing.assert_array_equal(chances, expected)
    np.testing.assert_array_equal(labels, CHANCES.values[expected.argmax(1)])
    rows, columns = slice(0, (size[0] + 1) // 2), slice(size[1] // 2, size[1])
    labels, chances = predicted(predictor_of(module, batch=3), source, [5, 2], rows, columns)
    np.testing.assert_array_equal(chances, expected[[5, 2], :, rows, columns])


def test_probabilities_of_every_type_are_those_of_the_definition():
    source, module = normalized(noise((1, 80, 100))), Waves()
    expected = defined(module, source, [0], 0.25)
    for dtype, values in (
        ("uint8", np.rint(expected * np.float32(255)).astype(np.uint8)),
        ("float16", expected.astype(np.float16)),
    ):
        wanted = replace(CHANCES, probabilities=dtype)
        _, chances = predicted(predictor_of(module), source, [0], wanted=wanted)
        np.testing.assert_array_equal(chances, values)


@pytest.mark.parametrize("values", [[9, 300, 60_000], [1, 70_000, 2**32 - 1], [200, 0, 128]])
def test_large_class_values_are_kept(values):
    source, module = normalized(noise((1, 80, 100))), Waves()
    dtype = np.min_scalar_type(max(values))
    wanted = Wanted(np.array(values, dtype), "float32")
    labels, chances = predicted(predictor_of(module), source, [0], wanted=wanted)
    assert labels.dtype == dtype
    np.testing.assert_array_equal(labels, wanted.values[chances.argmax(1)])


def test_of_equally_likely_classes_the_first_is_taken():
    chances = torch.tensor([[0.4, 0.2, 0.3], [0.4, 0.4, 0.3], [0.2, 0.4, 0.4]])[:, None]
    np.testing.assert_array_equal(CHANCES.labels(chances).numpy().view(np.uint8), [[3, 7, 250]])


def test_memory_is_one_row_of_tiles():
    """A plane of 100 rows of tiles is never held as a whole."""
    source = normalized(np.zeros((1, 64 * 100, 128), np.uint8) + np.uint8(5))
    predictor = predictor_of(Pixelwise(), 0)
    wanted = Wanted(np.array([0, 1], np.uint8))
    tracemalloc.start()
    for _ in predictor.planes(source, [0], wanted):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < source.height * source.width


def test_reading_that_is_given_up_leaves_no_thread():
    source = normalized(noise((40, 64, 64)))
    before = threading.active_count()
    bands = predictor_of(Pixelwise()).planes(source, list(range(40)), TWO)
    next(bands)
    bands.close()
    assert threading.active_count() == before


def test_a_batch_has_at_least_one_tile():
    with pytest.raises(ValueError, match="at least 1 tile"):
        predictor_of(Pixelwise(), batch=0)
