import threading

import pytest

from napari_affmae.engine.volumes.line import Line


def test_threads_pass_in_the_order_in_which_they_joined():
    line, passed, ready = Line(), [], [threading.Event() for _ in range(3)]

    def go(number, joined, prepared):
        with line.joined() as turn:
            joined.set()
            assert prepared.wait(30)
            turn.wait()
            passed.append(number)

    threads = []
    for number in range(3):
        joined = threading.Event()
        threads.append(threading.Thread(target=go, args=(number, joined, ready[number])))
        threads[-1].start()
        assert joined.wait(30)
    for number in (2, 1, 0):  # the last is prepared first
        ready[number].set()
    for thread in threads:
        thread.join(30)
    assert passed == [0, 1, 2]


def test_who_leaves_by_an_error_holds_up_nobody():
    line = Line()
    with pytest.raises(RuntimeError, match="bad luck"), line.joined():
        raise RuntimeError("bad luck")
    with line.joined() as turn:
        turn.wait()


def test_who_leaves_early_lets_the_next_one_through():
    line = Line()
    with line.joined() as first, line.joined() as second:
        first.leave()
        second.wait()  # in the same thread, which would wait for ever
        first.leave()
    with line.joined() as turn:
        turn.wait()
