import time
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest

from napari_affmae.data.pool.schedule import FIRST_BLOCKS, USES, Schedule, place_bytes

CROP = 8


def sizes(count, seed=0):
    """Pixels of blocks, none a multiple of the alignment."""
    return 2 * np.random.default_rng(seed).integers(100, 1000, count) + 1


def schedule(pixels, capacity, seed=3, bytes_per_pixel=3, blocks=None):
    blocks = range(len(pixels)) if blocks is None else blocks
    return Schedule(blocks, pixels, bytes_per_pixel, capacity, CROP, seed)


def arrivals(plan, count=10_000):
    return list(islice(iter(plan.next, None), count))


def all_bytes(pixels):
    return int(place_bytes(pixels, 3).sum())


def test_it_follows_from_the_seed_and_the_sizes():
    pixels = sizes(50)
    first = arrivals(schedule(pixels, 20_000), 300)
    assert first == arrivals(schedule(pixels, 20_000), 300)
    order = [arrival.block for arrival in first]
    other = [arrival.block for arrival in arrivals(schedule(pixels, 20_000, seed=4), 300)]
    assert order != other
    assert len({tuple(order[start : start + 50]) for start in range(0, 300, 50)}) == 6


def test_each_round_has_every_block_once():
    order = [arrival.block for arrival in arrivals(schedule(sizes(50), 20_000), 500)]
    for start in range(0, 500, 50):
        assert sorted(order[start : start + 50]) == list(range(50))
    chosen = [
        arrival.block for arrival in arrivals(schedule(sizes(50), 9000, blocks=[7, 9, 30]), 3)
    ]
    assert sorted(chosen) == [7, 9, 30]


@pytest.mark.parametrize("capacity", [8000, 20_000, 100_000])
@pytest.mark.parametrize("inserted", [False, True])
def test_places_of_those_that_are_there_never_overlap(capacity, inserted):
    pixels = sizes(80)
    plan = schedule(pixels, capacity, blocks=range(60))
    there, most = [], 0
    for number in range(1000):
        insert = inserted and number % 7 == 3
        arrival = plan.insert(60 + number % 20) if insert else plan.next()
        assert arrival.number == number
        # The oldest leave first, and none that could stay.
        leaving = [item for item in there if item.number < arrival.oldest]
        assert leaving == there[: len(leaving)]
        there = [*there[len(leaving) :], arrival]
        assert arrival.oldest == there[0].number
        places = sorted((item.offset, item.offset + 3 * int(pixels[item.block])) for item in there)
        assert all(end <= start for (_, end), (start, _) in pairwise(places))
        assert places[-1][1] <= capacity
        assert all(item.offset % 16 == 0 for item in there)
        most = max(most, sum(end - start for start, end in places))
    assert most > 0.8 * capacity


def test_blocks_that_all_fit_come_once():
    pixels = sizes(40)
    plan = schedule(pixels, all_bytes(pixels))
    assert plan.all_fit
    assert plan.pixels == pixels.sum()
    came = arrivals(plan)
    assert sorted(item.block for item in came) == list(range(40))
    assert {item.oldest for item in came} == {0}
    assert plan.next() is None
    assert not schedule(pixels, all_bytes(pixels) - 16).all_fit


def test_the_first_are_due_at_once_and_then_each_after_its_uses():
    pixels = sizes(40)
    came = arrivals(schedule(pixels, all_bytes(pixels)))
    dues = [item.due for item in came]
    assert dues[:FIRST_BLOCKS] == [0.0] * FIRST_BLOCKS
    steps = np.diff(dues[FIRST_BLOCKS - 1 :])
    blocks = [item.block for item in came[FIRST_BLOCKS:]]
    np.testing.assert_allclose(steps, USES * pixels[blocks] / CROP**2)


def test_what_does_not_fit_beside_the_first_is_due_later():
    pixels = np.full(40, 1000)
    came = arrivals(schedule(pixels, 5 * int(place_bytes(pixels[:1], 3)[0])), 20)
    assert [item.due == 0 for item in came] == [True] * 5 + [False] * 15
    assert [item.oldest for item in came] == [0] * 5 + list(range(1, 16))


def test_a_block_that_is_inserted_comes_next_and_again():
    pixels = sizes(11)
    plan = schedule(pixels, 20_000, blocks=range(10))
    before = arrivals(plan, 4)
    arrival = plan.insert(10)
    assert (arrival.number, arrival.block) == (4, 10)
    assert plan.pixels == pixels.sum()
    rest = arrivals(plan, 6)
    assert sorted(item.block for item in before + rest) == list(range(10))
    again = Counter(item.block for item in arrivals(plan, 22))
    assert again == dict.fromkeys(range(11), 2)


def test_inserting_a_block_of_the_schedule_does_not_double_it():
    plan = schedule(sizes(10), 20_000)
    arrivals(plan, 10)
    plan.insert(3)
    assert plan.pixels == sizes(10).sum()
    assert sorted(item.block for item in arrivals(plan, 10)) == list(range(10))


def test_a_block_that_is_inserted_first_does_not_keep_others_away():
    pixels = sizes(11)
    plan = schedule(pixels, all_bytes(pixels), blocks=range(10))
    assert plan.insert(10).number == 0
    came = arrivals(plan)
    assert sorted(item.block for item in came) == list(range(10))


def test_many_blocks_are_scheduled_quickly():
    pixels = np.full(100_000, 2048**2)
    started = time.perf_counter()
    plan = schedule(pixels, 2**31)
    plan.next()
    assert time.perf_counter() - started < 1
