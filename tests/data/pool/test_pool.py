import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import torch

from napari_affmae.config import NormalizationConfig
from napari_affmae.data.normalization.normalization import normalize_when_read
from napari_affmae.data.pool.blocks import BlockGrid
from napari_affmae.data.pool.loading import Loaded, load_pixels
from napari_affmae.data.pool.pool import Pool
from napari_affmae.data.pool.schedule import Schedule
from napari_affmae.errors import DataError, UnreadableFileError

CPU = torch.device("cpu")
CROP = 32
PLANE = 64 * 64


def images(planes=40, height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (planes, height, width), dtype=np.uint8)


def labels_of(block):
    """Labels that tell blocks apart."""
    size = block.rows.stop - block.rows.start, block.columns.stop - block.columns.start
    return np.full(size, block.number % 250, np.uint8)


def pool_of(sources, capacity=5 * PLANE, blocks=None, planes=None, config=None, **options):
    """Make a pool; every block of 64 x 64 serves 16 crops."""
    made = normalize_when_read(sources, config or NormalizationConfig())
    for source in made:
        with suppress(DataError):
            source.read(0)
        source.source.reads.clear()
    grid = BlockGrid(made, CROP, planes)

    def load(block):
        loaded = load_pixels(made[block.source], block, pool.dtype)
        return Loaded(*loaded, labels_of(block) if options.get("labelled") else None)

    drawn = range(len(grid)) if blocks is None else blocks
    return (pool := Pool(grid, load, drawn, CPU, capacity, 7, **options))


def advance(pool, crop):
    for _ in pool.advance(crop):
        pass


def readers():
    return [thread for thread in threading.enumerate() if "affmae-reader" in thread.name]


def content(pool, row):
    rows, columns = row["size"]
    size = pool.grid.n_channels * rows * columns
    pixels = pool.pixels[int(row["offset"]) :][: int(size)]
    return pixels.view(pool.grid.n_channels, int(rows), int(columns)).numpy()


def label_content(pool, row):
    rows, columns = row["size"].tolist()
    return pool.labels[int(row["label_offset"]) :][: rows * columns].view(rows, columns).numpy()


def assert_holds_its_blocks(pool):
    """Everything in the table lies in the pool, and nothing overlaps."""
    table = pool.residents.rows
    assert (np.diff(table["arrival"]) > 0).all()
    taken = np.zeros(pool.state.capacity, np.uint8)
    for row in table:
        block = pool.grid[int(row["block"])]
        source = pool.grid.sources[block.source].source
        expected = source.read(block.plane, block.rows, block.columns)
        np.testing.assert_array_equal(content(pool, row), expected)
        start = int(row["offset"]) * pool.dtype.itemsize
        end = start + expected.nbytes
        if pool.labels is not None:
            np.testing.assert_array_equal(label_content(pool, row), labels_of(block))
            end += expected[0].size
        taken[start:end] += 1
    assert taken.max() == 1
    assert taken.sum() == pool.state.held


def resident_blocks(pool):
    return pool.residents.rows[["arrival", "block", "offset"]].tolist()


@pytest.mark.parametrize(
    ("dtypes", "stored"),
    [
        (["u1"], torch.uint8),
        (["i1"], torch.int16),
        (["u2"], torch.uint16),
        (["u1", "i2"], torch.int16),
        (["u1", "f4"], torch.float32),
        (["f8"], torch.float32),
    ],
)
@pytest.mark.parametrize("clahe", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_the_pixels_of_the_source_lie_in_the_pool(watched, dtypes, stored, clahe, labelled):
    arrays = [images(2, 70, 75, seed).astype(dtype) for seed, dtype in enumerate(dtypes)]
    for array in arrays:
        if array.dtype.kind == "f":
            array[:, 3:5] = np.nan
    sources = [watched(np.stack([array, array[:, ::-1]], 1), "ZCYX") for array in arrays]
    config = NormalizationConfig(clahe=clahe)
    with pool_of(sources, config=config, labelled=labelled) as pool:
        pool.fill()
        assert pool.pixels.dtype == (torch.float32 if clahe else stored)
        assert len(pool.residents) == 2 * len(dtypes)
        for row in pool.residents.rows:
            source = pool.grid.sources[row["source"]]
            is_float = clahe or stored == torch.float32
            plane = source.read_scaled if is_float else source.source.read
            np.testing.assert_array_equal(content(pool, row), plane(int(row["plane"])))
            limits = source.scaled_limits() if is_float else source.raw_limits()
            np.testing.assert_array_equal(row["limits"], limits)


@pytest.mark.parametrize("labelled", [False, True])
def test_blocks_roll_through_a_small_pool(watched, labelled):
    source = watched(images(40))
    with pool_of([source], capacity=5 * PLANE * (1 + labelled), labelled=labelled) as pool:
        seen = set()
        for crop in range(0, 700, 8):
            advance(pool, crop)
            assert_holds_its_blocks(pool)
            assert len(pool.residents) == 5
            assert pool.state.capacity == 5 * PLANE * (1 + labelled)
            seen |= set(pool.residents.rows["block"].tolist())
        assert seen == set(range(40))


def test_what_is_there_does_not_depend_on_the_threads(watched):
    slow = [watched(images(20, seed=seed)) for seed in range(2)]
    quick = [watched(images(20, seed=seed)) for seed in range(2)]
    with pool_of(slow) as one, pool_of(quick) as other:
        for source in slow:
            source.seconds = 0.01
        for crop in range(0, 800, 20):
            advance(one, crop)
            advance(other, crop)
            assert resident_blocks(one) == resident_blocks(other)
            assert_holds_its_blocks(one)


@pytest.mark.parametrize("crop", [0, 15, 16, 17, 333, 5000])
def test_a_resumed_run_has_the_same_blocks_and_reads_no_others(watched, crop):
    whole, resumed = watched(images(40)), watched(images(40))
    with pool_of([whole]) as one, pool_of([resumed]) as other:
        for step in range(0, crop, 16):
            advance(one, step)
        for step in range(crop, crop + 300, 10):
            advance(one, step)
            advance(other, step)
            assert resident_blocks(one) == resident_blocks(other)
            if step == crop:
                assert len(resumed.reads) <= 5 + 2 * other._readers
            assert_holds_its_blocks(other)


def test_only_what_is_needed_is_read(watched):
    source = watched(images(400))
    pool = pool_of([source], capacity=PLANE)
    with pool:
        advance(pool, 0)
        assert len(pool.residents) == 4  # crops of one batch differ
    assert len(source.reads) <= 4 + 2 * pool._readers
    assert pool.state.held == 4 * PLANE


def test_only_the_chosen_blocks_are_read(watched):
    source = watched(images(30))
    with pool_of([source], blocks=[3, 17], capacity=2**20) as pool:
        pool.fill()
        assert sorted(source.reads) == [3, 17]
        assert pool.state.total == pool.state.held == pool.state.read == 2 * PLANE
    with pytest.raises(DataError, match="no image"):
        pool_of([source], blocks=[])


def test_a_pool_that_all_blocks_fit_is_no_larger(watched):
    with pool_of([watched(images(30))], capacity=2**30) as pool:
        assert pool.state.capacity == 30 * PLANE
        pool.fill()
        assert_holds_its_blocks(pool)
        advance(pool, 10**6)
        assert pool.state.read == 30 * PLANE
    with (
        pool_of([watched(images(30))], capacity=29 * PLANE) as pool,
        pytest.raises(ValueError, match="do not fit"),
    ):
        pool.fill()


def test_waiting_is_counted_and_can_be_shown(watched):
    source = watched(images(10))
    with pool_of([source]) as pool:
        source.gate.clear()
        waiting = pool.advance(0)
        next(waiting)
        assert pool.state.waited == 0
        source.gate.set()
        for _ in waiting:
            pass
        waited = pool.state.waited
        assert waited > 0.2
        advance(pool, 0)
        assert pool.state.waited == waited


def test_closing_ends_the_threads_and_leaves_the_blocks(watched):
    before = readers()
    pool = pool_of([watched(images(40))])
    assert readers() == before
    with pool:
        advance(pool, 0)
        assert readers() != before
    assert readers() == before
    assert_holds_its_blocks(pool)
    pool.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        advance(pool, 1000)


def test_closing_does_not_wait_for_more_than_what_is_being_read(watched):
    source = watched(images(40))
    pool = pool_of([source])
    source.gate.clear()
    waiting = pool.advance(0)
    next(waiting)
    closing = threading.Thread(target=pool.close)
    closing.start()
    while pool._executor._work_queue.qsize() > pool._readers:
        time.sleep(0.001)
    source.gate.set()
    closing.join(timeout=10)
    assert not closing.is_alive()
    assert len(source.reads) <= pool._readers


def test_a_source_that_breaks_ends_a_run_or_is_left_out(watched):
    sources = [watched(images(10, seed=seed), name=str(seed)) for seed in range(3)]
    with pool_of(sources) as pool:
        sources[1].broken = OSError("the disk is gone")
        with pytest.raises(UnreadableFileError, match=r"plane \d of 1: the disk is gone"):
            advance(pool, 1000)
        assert not pool.left_out
    sources[1].broken = None
    with pool_of(sources, leave_out=True) as pool:
        sources[1].broken = OSError("the disk is gone")
        advance(pool, 0)
        first = dict(pool.left_out)
        sources[1].broken = OSError("something else")
        for crop in range(0, 1000, 16):
            advance(pool, crop)
        assert set(pool.residents.rows["source"].tolist()) == {0, 2}
        assert_holds_its_blocks(pool)
        assert list(pool.left_out) == [1]
        assert isinstance(pool.left_out[1], UnreadableFileError)
        assert pool.left_out.items() >= first.items()
        sources[0].broken = sources[2].broken = OSError("gone too")
        with pytest.raises(UnreadableFileError, match="gone too"):
            [advance(pool, crop) for crop in range(1000, 2000, 16)]


def test_blocks_of_a_broken_source_are_left_out_in_the_order_of_the_schedule(watched):
    """Readers are at several blocks at once: the first to break may be read last."""
    for slow in (0.0, 0.3):
        pool = pool_of([watched(images(10)), watched(images(10))], 2**20, leave_out=True)
        schedule = Schedule(range(20), pool.grid.pixels, 1, 2**20, CROP, 7)
        order = [schedule.next().block for _ in range(20)]
        place = next(n for n in range(4, 19) if order[n] < 10 and order[n + 1] < 10)
        load, first, good = pool._load, order[place], order[:place]

        def breaking(block, load=load, slow=slow, first=first, good=good):
            time.sleep(slow * (block.number == first))
            if block.number < 10 and block.number not in good:
                raise UnreadableFileError(f"plane {block.plane} is gone")
            return load(block)

        pool._load = breaking
        with pool:
            pool.fill()
            assert str(pool.left_out[0]) == f"plane {first} is gone"
            kept = pool.residents.rows["block"].tolist()
        assert kept == [number for number in order if number in good or number >= 10]
        assert min(kept) < 10


def test_some_block_is_there_even_where_the_first_ones_are_broken(watched):
    sources = [watched(images(60, seed=1)), watched(images(1, seed=2))]
    with pool_of(sources, leave_out=True) as pool:
        sources[0].broken = OSError("the disk is gone")
        advance(pool, 0)
        assert pool.residents.rows["source"].tolist() == [1]


def test_a_source_without_a_finite_value_is_left_out(watched):
    sources = [watched(np.full((3, 64, 64), np.nan, np.float32)), watched(images(3))]
    with pool_of(sources, capacity=2**30, leave_out=True) as pool:
        pool.fill()
        assert isinstance(pool.left_out[0], DataError)
        assert "no sampled pixel" in str(pool.left_out[0])
        assert len(pool.residents) == 3


def test_blocks_are_brought_out_of_turn(watched):
    source = watched(images(40))
    with pool_of([source], blocks=range(30), later=range(30, 40), labelled=True) as pool:
        advance(pool, 0)
        for crop in range(0, 2000, 10):
            if crop % 50 == 20:
                block = 30 + crop // 50 % 10
                pool.bring(block)
                assert block in pool.residents.rows["block"]
            advance(pool, crop)
            assert_holds_its_blocks(pool)
        assert pool.state.total == 40 * 2 * PLANE


def test_what_is_brought_does_not_drive_others_away_where_there_is_room(watched):
    with pool_of([watched(images(6))], blocks=[0], later=range(1, 6), capacity=2**20) as pool:
        for block in range(1, 6):
            pool.bring(block)
            advance(pool, 0)
            assert len(pool.residents) == block + 1
        advance(pool, 10**6)
        assert sorted(pool.residents.rows["block"].tolist()) == list(range(6))
        assert_holds_its_blocks(pool)


def test_there_is_room_for_the_largest_that_may_come(watched):
    sources = [watched(images(2)), watched(images(1, 500, 400))]
    with pool_of(sources, blocks=[0, 1], later=[2], capacity=PLANE) as pool:
        advance(pool, 0)
        pool.bring(2)
        assert_holds_its_blocks(pool)
        assert 2 in pool.residents.rows["block"]


def test_it_is_told_what_an_advance_took_in(watched):
    with pool_of([watched(images(40))]) as pool:
        for crop, count in ((0, 5), (8, 0), (32, 2)):
            advance(pool, crop)
            assert pool.arrived == pool.residents.rows["block"].tolist()[5 - count :]


@pytest.mark.parametrize(
    ("rows", "columns", "parts"),
    [
        (slice(1000, 1100), slice(900, 1300), 4),
        (slice(0, 50), slice(0, 60), 1),
        (slice(2050, 2100), slice(0, 2200), 2),
    ],
)
def test_labels_are_patched_where_a_plane_lies_in_the_pool(watched, rows, columns, parts):
    source = watched(images(2, 2100, 2200))
    with pool_of([source], capacity=2**30, labelled=True) as pool:
        pool.fill()
        before = {int(row["block"]): label_content(pool, row).copy() for row in pool.residents.rows}
        size = rows.stop - rows.start, columns.stop - columns.start
        new = np.random.default_rng(0).integers(0, 9, size, dtype=np.uint8) + 200
        pool.patch_labels(0, 1, rows, columns, new)
        changed = 0
        for row in pool.residents.rows:
            block = pool.grid[int(row["block"])]
            canvas = np.full((2100, 2200), 255, np.uint8)
            canvas[block.rows, block.columns] = before[block.number]
            if block.plane == 1:
                canvas[rows, columns] = new
            expected = canvas[block.rows, block.columns]
            np.testing.assert_array_equal(label_content(pool, row), expected)
            changed += not np.array_equal(expected, before[block.number])
            np.testing.assert_array_equal(
                content(pool, row), source.read(block.plane, block.rows, block.columns)
            )
        assert changed == parts


def test_the_state_costs_little(watched):
    with pool_of([watched(images(2))]) as pool:
        pool.fill()
        block = pool.grid[0]
        for arrival in range(2, 100_000):
            pool.residents.insert(arrival, block, 0, 0, np.zeros((1, 4), np.float32))
        started = time.perf_counter()
        for _ in range(100):
            state = pool.state
        assert time.perf_counter() - started < 0.02
        assert state.held == 100_000 * PLANE
