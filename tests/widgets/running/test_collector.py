"""Loading libraries without pauses of the garbage collector."""

import gc
import weakref

from napari_affmae.widgets.running.collector import without_collecting


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.me = self


def test_what_is_loaded_counts_as_old_and_is_collected_when_all_is() -> None:
    assert gc.isenabled()
    with without_collecting():
        assert not gc.isenabled()
        made = [Ring() for _ in range(5)]
    assert gc.isenabled()
    young = {id(one) for generation in (0, 1) for one in gc.get_objects(generation=generation)}
    assert young.isdisjoint(map(id, made))
    assert gc.get_freeze_count() == 0
    seen = [weakref.ref(one) for one in made]
    del made
    gc.collect(1)
    assert all(one() is not None for one in seen)
    gc.collect()
    assert all(one() is None for one in seen)


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with without_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
