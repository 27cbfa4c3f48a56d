from threading import Event

import pytest

from napari_affmae.data.threads import map_in_order


def test_results_come_in_the_order_of_the_items():
    later = Event()

    def slow_first(number):
        if number == 3:
            assert later.wait(10)
        if number == 4:
            later.set()
        return number**2

    assert list(map_in_order(slow_first, range(50))) == [number**2 for number in range(50)]


def test_an_error_comes_after_the_results_before_it():
    def broken(number):
        if number >= 5:
            raise ValueError(number)
        return number

    results = map_in_order(broken, range(50))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5"):
        next(results)


def test_items_are_taken_only_as_they_are_needed():
    taken = []
    results = map_in_order(lambda item: item, (taken.append(i) or i for i in range(1000)))
    assert next(results) == 0
    assert taken == [0]
    for _ in range(99):
        next(results)
    assert len(taken) < 150
    results.close()
    assert len(taken) < 150
