import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from time import sleep

import numpy as np
import pytest
import tifffile

from napari_affmae.data.formats.files import handles
from napari_affmae.data.formats.files.handles import POOL, HandlePool, OpenFile
from napari_affmae.data.formats.opening.source import open_source


class Counting:
    """Opens files that note when they are closed."""

    def __init__(self):
        self.opened, self.closed = [], []

    def opener(self, number, resident=0):
        def opener():
            self.opened.append(number)
            close = partial(self.closed.append, number)
            return OpenFile(np.zeros((2, 2)), close=close, resident=resident)

        return opener


def test_files_used_longest_ago_are_closed():
    pool, counting = HandlePool(files=2), Counting()
    for key in (0, 1, 0, 2):
        with pool.use(key, counting.opener(key)):
            pass
    assert counting.closed == [1]
    assert len(pool) == 2


def test_memory_is_bounded_too():
    pool, counting = HandlePool(files=9, size=100), Counting()
    for key in range(3):
        with pool.use(key, counting.opener(key, resident=40)):
            pass
    assert counting.closed == [0]


def test_a_file_that_is_read_stays_open():
    pool, counting = HandlePool(files=1), Counting()
    with pool.use(0, counting.opener(0)):
        with pool.use(1, counting.opener(1)):
            assert counting.closed == []
            with pool.use(0, counting.opener(0)):
                assert counting.opened == [0, 1]
        pool.discard(0)
        assert counting.closed == []
    assert counting.closed == [0]


def test_others_read_while_a_file_is_slow_to_open():
    pool, counting = HandlePool(), Counting()
    started, finish = Event(), Event()

    def slow():
        started.set()
        assert finish.wait(10)
        return counting.opener(1)()

    def read(opener):
        with pool.use(1, opener) as file:
            return file

    with ThreadPoolExecutor(2) as executor:
        waiting = [executor.submit(read, slow)]
        assert started.wait(10)
        waiting.append(executor.submit(read, counting.opener(2)))
        with pool.use(0, counting.opener(0)):
            pass
        finish.set()
        assert waiting[0].result(10) is waiting[1].result(10)
    assert counting.opened == [0, 1]


def test_a_file_that_does_not_open_may_open_later():
    pool, counting = HandlePool(), Counting()
    with pytest.raises(ZeroDivisionError), pool.use(0, lambda: OpenFile(np.zeros(1 // 0))):
        pass
    with pool.use(0, counting.opener(0)):
        pass
    pool.clear()
    assert counting.closed == [0]


def test_files_may_be_discarded_while_room_is_made():
    """Garbage collection, which runs anywhere, discards the files of sources that are gone."""
    pool = HandlePool()

    class Entangled:
        resident = property(lambda self: pool.discard(1) or 0)
        close = staticmethod(lambda: None)

    for key in (0, 1, 2):
        with pool.use(key, Entangled):
            pass
    assert len(pool) == 2


def test_a_thousand_files_need_few_handles(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack)
    before = len(POOL)
    sources = [open_source(tmp_path / "a.tif") for _ in range(handles._FILES + 20)]
    for source in sources:
        np.testing.assert_array_equal(source.read(4)[0], stack[4])
    assert len(POOL) <= handles._FILES
    np.testing.assert_array_equal(sources[0].read(1)[0], stack[1])
    del sources, source
    gc.collect()
    assert len(POOL) <= before


def test_large_files_are_read_one_after_the_other(monkeypatch):
    """Several threads must not take several times what one image may."""
    monkeypatch.setattr(handles, "largest_piece", lambda: 100)
    pool, counting, reading, most = HandlePool(), Counting(), [], []

    def read(number):
        key = number % 3
        with pool.use(key, counting.opener(key, resident=(70, 60, 40)[key])):
            reading.append(key)
            sleep(0.01)
            most.append(frozenset(reading))
            reading.remove(key)

    with ThreadPoolExecutor(6) as executor:
        list(executor.map(read, range(60)))
    assert len(most) == 60
    assert {0, 1} not in most
    assert {0, 2} not in most
    assert {1, 2} in most
    assert pool._busy == 0


def test_close_and_read_again(pages, stack):
    with open_source(pages) as source:
        source.read(0)
    np.testing.assert_array_equal(source.read(1)[0], stack[1])
    source.close()


def test_closing_while_others_read(pages, stack):
    source = open_source(pages)

    def read(plane):
        for _ in range(30):
            np.testing.assert_array_equal(source.read(plane)[0], stack[plane])
            source.close()

    with ThreadPoolExecutor(5) as executor:
        list(executor.map(read, range(5)))
