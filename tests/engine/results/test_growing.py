"""Results that are looked at while they are computed, and the order in which they are."""

import math

import numpy as np
import pytest

from napari_affmae.engine.inference.tiles import Region
from napari_affmae.engine.results.growing import levels_for_viewer
from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.results.volume import Place, Volume
from napari_affmae.engine.volumes.block_order import BlockOrder

SIZES = BlockSizes(chunk=8, side=16)
KNOWN = {"pixel_size": (4.0, 5.0), "plane_distance": 4.0}
SHAPES = [
    ((40, 50), "YX", {}),
    ((3, 40, 50), "ZYX", KNOWN),
    ((3, 2, 40, 50), "ZTYX", {}),
    ((2, 3, 2, 40, 30), "AZTYX", {}),
]


@pytest.fixture
def make_volume(tmp_path, make_plan):
    def make(shape, axes, known):
        plan = make_plan(shape, axes, sizes=SIZES, probabilities="uint8", **known)
        place = Place(tmp_path / "a.zarr", tmp_path / "a_probabilities.zarr")
        return Volume.create(place, plan, "a")

    return make


def random_result(shape, volume):
    """Labels and probabilities with the image's axes, and with those of the volume."""
    random = np.random.default_rng(0)
    labels = random.choice(np.array([0, 2], np.uint8), shape)
    chances = random.integers(1, 256, (2, *shape), np.uint8)
    plan = volume.plan

    def stored(array):
        planes = array.reshape(math.prod(plan.planes), *shape[-2:])
        stack = planes.reshape(*plan.planes, *shape[-2:])
        return stack.transpose(*plan.order, len(plan.order), len(plan.order) + 1)

    parts = [stored(part) for part in chances]
    return labels, chances, stored(labels), np.stack(parts, plan.channel_axis)


@pytest.mark.parametrize(("shape", "axes", "known"), SHAPES)
def test_a_complete_result_has_the_axes_of_its_image(make_volume, fill, shape, axes, known):
    volume = make_volume(shape, axes, known)
    labels, chances, stored, stored_chances = random_result(shape, volume)
    fill(volume, stored, stored_chances)
    full, *smaller = levels_for_viewer(volume, shape[:-2])
    assert (full.shape, full.ndim, full.dtype) == (shape, len(shape), np.uint8)
    np.testing.assert_array_equal(full, labels)
    for number in range(2):
        array = levels_for_viewer(volume, shape[:-2], number)[0]
        np.testing.assert_array_equal(array[...], chances[number])
    for level, array in enumerate(smaller, start=1):
        assert array.shape[-2:] == volume.plan.blocks(level).shape[-2:]
    index = (*(size - 1 for size in shape[:-2]), slice(3, 30, 4), slice(45, 2, -3))
    np.testing.assert_array_equal(full[index], labels[index])
    np.testing.assert_array_equal(full[..., 5], labels[..., 5])
    np.testing.assert_array_equal(full[-1], labels[-1])
    assert full[(0,) * len(shape)].shape == ()
    with pytest.raises(IndexError, match="places on the axis"):
        full[..., 60]


def test_smaller_levels_show_what_there_is_of_the_larger_ones(make_volume):
    volume = make_volume((3, 40, 50), "ZYX", KNOWN)
    plan = volume.plan
    levels = levels_for_viewer(volume, (3,))
    assert len(levels) == plan.levels > 2
    assert plan.steps[1] == (2, 2, 2)
    viewer = Volume(volume.place)
    looked_at = levels_for_viewer(viewer, (3,))
    _, box = volume.box(4)
    block = np.full([part.stop - part.start for part in box], 2, np.uint8)
    volume.write(0, box, block, np.zeros((2, *block.shape), np.uint8))
    for array in looked_at:
        assert not array[...].any()  # it is not marked
    volume.mark(4)
    viewer.ledger.reload()
    for array, step in zip(looked_at, plan.steps, strict=True):
        expected = np.zeros(plan.shape, np.uint8)
        expected[box] = 2
        np.testing.assert_array_equal(
            array[...], expected[tuple(slice(None, None, n) for n in step)]
        )
    assert not any(array[...].any() for array in levels_for_viewer(viewer, (3,), 0))


def levels_of(volume, numbers):
    return [volume.box(number)[0] for number in numbers]


@pytest.mark.parametrize(("shape", "axes", "known"), SHAPES)
@pytest.mark.parametrize("together", [1, 3])
def test_every_block_comes_once_after_those_that_it_is_made_from(
    make_volume, shape, axes, known, together
):
    volume = make_volume(shape, axes, known)
    order, running, seen = BlockOrder(volume, together), [], []
    while True:
        while len(running) < 2 and (numbers := order.take()):
            lowest = min(levels_of(volume, numbers))
            assert levels_of(volume, numbers).count(lowest) <= together
            for place, number in enumerate(numbers):
                level, box = volume.box(number)
                if level:
                    # What is read of the level below belongs to blocks that are marked, or comes
                    # before it and is all that is read.
                    steps = zip(volume.plan.steps[level], volume.plan.steps[level - 1], strict=True)
                    factors = [step // below for step, below in steps]
                    for other in range(volume.plan.first(volume.plan.levels)):
                        its_level, its_box = volume.box(other)
                        touches = its_level == level - 1 and all(
                            part.start * factor < its.stop and its.start < part.stop * factor
                            for part, its, factor in zip(box, its_box, factors, strict=True)
                        )
                        if touches and level > lowest:
                            assert other in numbers[:place]
                        elif touches:
                            assert volume.ledger.has(other)
            running.append(numbers)
        if not running:
            break
        for number in running.pop(0):
            volume.ledger.mark(number)
            order.completed(number)
            seen.append(number)
    assert sorted(seen) == list(range(volume.plan.first(volume.plan.levels)))
    assert len(seen) == len(set(seen))


def test_a_run_that_goes_on_begins_with_smaller_levels_that_can_be_made(make_volume):
    volume = make_volume((40, 50), "YX", {})
    order = BlockOrder(volume, 1)
    while not levels_of(volume, numbers := order.take())[0]:
        for number in numbers:
            volume.ledger.mark(number)
            order.completed(number)
    again = BlockOrder(Volume(volume.place), 1)
    assert again.take() == numbers


def test_what_the_user_looks_at_comes_first(make_volume):
    volume = make_volume((3, 40, 50), "ZYX", KNOWN)
    looked_at = Region([2], slice(20, 40), slice(0, 10))
    order = BlockOrder(volume, 1, lambda: looked_at)
    first = [volume.box(order.take()[0]) for _ in range(2)]
    assert {level for level, _ in first} == {0}
    assert [box[0] for _, box in first] == [slice(2, 3)] * 2
    assert [box[1] for _, box in first] == [slice(0, 24), slice(24, 40)]
    assert all(box[2].start == 0 for _, box in first)
    looked_at = Region([1], slice(0, 1), slice(49, 50))
    _, box = volume.box(order.take()[0])
    assert (box[0], box[1].start, box[2].stop) == (slice(1, 2), 0, 50)
    assert volume.box(order.take()[0])[1][0] == slice(0, 1)  # nothing more is in view
