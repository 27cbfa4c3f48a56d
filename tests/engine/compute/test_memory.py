"""How much memory a block takes."""

import threading

import numpy as np

from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.memory import _ProcessMemory, memory_meter


class Held:
    """Bytes that a process says it holds."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def test_growth_since_the_start_is_the_peak():
    held = Held(1000)
    meter = _ProcessMemory(held)
    held.now = 1700
    assert meter.peak == 700
    held.now = 1200
    assert meter.peak == 700


def test_the_thread_sees_what_is_gone_when_the_block_ends():
    held, seen = Held(0), threading.Event()

    def read():
        if threading.current_thread().name == "affmae-memory" and held.now:
            seen.set()
        return held.now

    with _ProcessMemory(read) as meter:
        held.now = 500
        assert seen.wait(10)
        # A second sample: the first has been counted when it is taken.
        seen.clear()
        assert seen.wait(10)
        held.now = 0
    assert meter.peak == 500


def test_forgetting_measures_anew():
    held = Held(100)
    meter = _ProcessMemory(held)
    held.now = 900
    assert meter.peak == 800
    held.now = 300
    meter.forget()
    assert meter.peak == 200


def test_a_sample_that_was_begun_before_forgetting_is_forgotten_too():
    """The thread must not bring the old peak back."""
    sampling, forgotten = threading.Event(), threading.Event()
    held = Held(100)

    def read():
        now = held.now
        if threading.current_thread().name == "affmae-memory" and not forgotten.is_set():
            sampling.set()
            assert forgotten.wait(10)
        return now

    with _ProcessMemory(read) as meter:
        held.now = 900
        assert sampling.wait(10)
        assert meter.peak == 800
        held.now = 300
        meter.forget()
        forgotten.set()
    assert meter.peak == 200


def test_a_process_is_seen_to_grow():
    with memory_meter(plan_device("cpu")) as memory:
        held = np.ones(100_000_000, np.uint8)
        assert memory.peak > 0, held
        assert memory.available > 0
