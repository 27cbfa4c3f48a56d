import numpy as np
import pytest

from napari_affmae.config import NormalizationConfig
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.normalization.normalization import normalize_when_read
from napari_affmae.data.pool.blocks import BlockGrid
from napari_affmae.errors import DataError


class Unread:
    """An array of a shape, which nobody may read."""

    dtype = np.dtype(np.uint8)

    def __init__(self, *shape):
        self.shape = shape

    def __getitem__(self, index):
        raise AssertionError("a grid reads nothing")


def grid(*shapes, crop=64, planes=None, axes="ZYX"):
    sources = [open_source(Unread(*shape), axes=axes[-len(shape) :]) for shape in shapes]
    return BlockGrid(normalize_when_read(sources, NormalizationConfig()), crop, planes)


def length(part):
    return part.stop - part.start


@pytest.mark.parametrize(
    ("height", "width", "crop"),
    [(2048, 2049, 512), (2100, 5000, 64), (3000, 2048, 1), (6145, 6144, 512), (4001, 9000, 1000)],
)
def test_every_place_of_a_crop_is_in_one_block(height, width, crop):
    blocks = grid((2, height, width), crop=crop)
    held = np.zeros((height - crop + 1, width - crop + 1), np.uint8)
    for number in blocks.of_plane(0, 1):
        block = blocks[number]
        assert block.plane == 1
        assert 0 <= block.rows.start < block.rows.stop <= height
        assert 0 <= block.columns.start < block.columns.stop <= width
        assert max(length(block.rows), length(block.columns)) <= max(2048, 4 * crop)
        (top, left), (rows, columns) = (block.rows.start, block.columns.start), block.starts
        assert length(block.rows) == rows + crop - 1
        assert length(block.columns) == columns + crop - 1
        held[top : top + rows, left : left + columns] += 1
    assert (held == 1).all()


@pytest.mark.parametrize("size", [(2048, 2048), (64, 64), (65, 2000)])
def test_planes_that_are_small_enough_are_one_block(size):
    (block,) = grid(size)
    assert (block.rows, block.columns) == (slice(0, size[0]), slice(0, size[1]))
    assert block.starts == (size[0] - 63, size[1] - 63)
    assert block.weight == size[0] * size[1]


def test_crops_of_planes_that_are_smaller_have_starts_before_the_edge():
    (block,) = grid((40, 1))
    assert (block.rows, block.columns) == (slice(0, 40), slice(0, 1))
    assert block.starts == (25, 64)


def test_blocks_are_numbered_source_by_source_and_plane_by_plane():
    blocks = grid((3, 70, 70), (2, 2100, 5000), (1, 70, 70), planes=[[2, 0], [1], []])
    per_plane = len(blocks.of_plane(1, 1))
    assert per_plane == 2 * 3
    places = [(block.number, block.source, block.plane) for block in blocks]
    expected = [(0, 2), (0, 0)] + per_plane * [(1, 1)]
    assert places == [(number, *place) for number, place in enumerate(expected)]
    assert len(blocks) == len(expected)
    assert blocks.of_plane(0, 0) == range(1, 2)
    assert blocks.of_plane(1, 1) == range(2, 8)
    np.testing.assert_array_equal(
        blocks.pixels, [length(block.rows) * length(block.columns) for block in blocks]
    )
    np.testing.assert_array_equal(
        blocks.sources_of(np.arange(len(blocks))), [block.source for block in blocks]
    )
    with pytest.raises(ValueError, match="plane 1 of source 0 is not drawn from"):
        blocks.of_plane(0, 1)


def test_weights_are_shares_of_the_planes():
    shapes = [(3, 70, 71), (2, 2100, 5000), (1, 20, 30)]
    blocks = grid(*shapes)
    assert sum(block.weight for block in blocks) == pytest.approx(sum(map(np.prod, shapes)))
    parts = [blocks[number] for number in blocks.of_plane(1, 0)]
    for block in parts:
        share = np.prod(block.starts) / ((2100 - 63) * (5000 - 63))
        assert block.weight == pytest.approx(share * 2100 * 5000)


def test_blocks_are_picked_by_area():
    blocks = grid((4, 64, 64), (1, 128, 256), (2, 3000, 100), planes=[[0, 1, 3], [0], [1]])
    draws = (np.arange(100_000) + 0.5) / 100_000
    counts = np.bincount(blocks.pick(draws), minlength=len(blocks))
    weights = np.array([block.weight for block in blocks])
    np.testing.assert_allclose(counts / len(draws), weights / weights.sum(), atol=3e-4)
    weights[3] = 0
    without = np.bincount(blocks.pick(draws, [1]), minlength=len(blocks))
    np.testing.assert_allclose(without / len(draws), weights / weights.sum(), atol=3e-4)
    assert blocks.pick(np.array([0.0, 1 - 2.0**-53])).tolist() == [0, len(blocks) - 1]
    assert blocks.pick(np.array([0.0, 1 - 2.0**-53]), [0, 2]).tolist() == [3, 3]
    with pytest.raises(DataError, match="no image"):
        blocks.pick(draws, [0, 1, 2])


def test_wrong_arguments():
    with pytest.raises(DataError, match="no image"):
        BlockGrid([], 64)
    with pytest.raises(ValueError, match="planes are given for 2 of 1"):
        grid((2, 70, 70), planes=[[0], [0]])
    with pytest.raises(ValueError, match=r"planes \[2\] of a source with 2"):
        grid((2, 70, 70), planes=[[2]])
    with pytest.raises(ValueError, match=r"planes \[0, -1\]"):
        grid((2, 70, 70), planes=[[0, -1]])
    with pytest.raises(DataError, match=r"differ in channels.*has 2.*has 3"):
        grid((2, 70, 70), (3, 70, 70), axes="CYX")
