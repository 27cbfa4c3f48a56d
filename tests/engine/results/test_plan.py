import numpy as np
import pytest

from napari_affmae.engine.results.plan import BlockSizes, Plan

SMALL = BlockSizes(chunk=16, side=32, depth=2)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((50, 70), "YX"), ((5, 50, 70), "ZYX"), ((3, 5, 100, 33), "TZYX"), ((2, 2, 3, 9, 9), "ABTYX")],
)
def test_blocks_cover_every_level_exactly_once(make_plan, shape, axes):
    plan = make_plan(shape, axes, sizes=SMALL)
    for level in range(plan.levels):
        blocks = plan.blocks(level)
        seen = np.zeros(blocks.shape, int)
        for number in range(len(blocks)):
            seen[blocks.box(number)] += 1
        assert (seen == 1).all()
        assert all(n % c == 0 for n, c in zip(blocks.block, plan.chunk, strict=True))


def test_planes_of_blocks_are_those_of_the_image(make_plan):
    """Time comes first in OME-Zarr, whatever the image has."""
    plan = make_plan((5, 3, 20, 20), "ZTYX", sizes=SMALL)
    assert (plan.axes, plan.shape) == ("tzyx", (3, 5, 20, 20))
    blocks = plan.blocks(0)
    numbers = np.full(plan.shape[:2], -1)
    for number in range(len(blocks)):
        box = blocks.box(number)
        numbers[box[:2]] = np.reshape(plan.source_planes(box), numbers[box[:2]].shape)
    np.testing.assert_array_equal(numbers, np.arange(15).reshape(5, 3).T)
    assert all(numbers[plan.position(plane)] == plane for plane in range(15))


@pytest.mark.parametrize(
    ("axes", "ome"), [("YX", "yx"), ("ZYX", "zyx"), ("TYX", "tyx"), ("IYX", "zyx")]
)
def test_axes_have_names_that_ome_knows(make_plan, axes, ome):
    assert make_plan((3, 20, 20)[-len(axes) :], axes).axes == ome


def test_planes_are_halved_once_rows_are_as_far_apart(make_plan):
    known = {"pixel_size": (4.0, 4.0), "plane_distance": 10.0}
    plan = make_plan((64, 4096, 1000), "ZYX", **known)
    assert plan.steps == ((1, 1, 1), (1, 2, 2), (1, 4, 4))
    plan = make_plan((64, 8192, 1000), "ZYX", **known)
    assert plan.steps[-1] == (2, 8, 8)
    assert make_plan((64, 8192, 1000), "ZYX").steps[-1] == (1, 8, 8)
    assert plan.spacing == (10.0, 4.0, 4.0)


def test_blocks_are_bounded_and_few(make_plan):
    """Whatever the image, a block has at most about 256 MB, and files stay few."""
    for shape in ((20_000, 20_000), (100_000, 99_000), (700, 700)):
        plan = make_plan((500, *shape), "ZYX")
        assert np.prod(plan.shard) <= 2**28
        assert len(plan.blocks(0)) <= 500 * np.ceil(np.prod(shape) / 4e7)
        with_probabilities = make_plan((500, *shape), "ZYX", probabilities="float32")
        assert np.prod(with_probabilities.shard) * 9 <= 2**29
    many = make_plan((10_000, 300, 300), "ZYX")
    assert len(many.blocks(0)) == 1000


def test_a_plan_survives_its_json(make_plan):
    plan = make_plan((5, 50, 70), "ZYX", sizes=SMALL, pixel_size=(0.1, 0.3))
    again = Plan.model_validate_json(plan.model_dump_json())
    assert again == plan
    assert again.fingerprint == plan.fingerprint


def test_what_differs_is_named(make_plan):
    plan = make_plan((5, 50, 70), "ZYX")
    assert plan.differences(plan) == []
    for field, value, word in (
        ("image", "other", "image"),
        ("model", "other", "model"),
        ("tile", 128, "size of tiles"),
        ("overlap", 0.5, "overlap of tiles"),
        ("precision", "bf16", "precision"),
    ):
        other = plan.model_copy(update={"origin": plan.origin.model_copy(update={field: value})})
        assert plan.differences(other) == [f"another {word}"]
        assert other.fingerprint != plan.fingerprint
    assert plan.differences(make_plan((5, 50, 70), "ZYX", pixel_size=(1.0, 1.0))) == [
        "other settings"
    ]
