"""The same work on many images, by several threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# A thread may hold a whole decoded image, so their number stays small on large computers too.
_MOST_THREADS = 16


def map_in_order(function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Call a function for every item in threads, and yield the results in the order of the items.

    Reading files waits for disks, and decoders release the interpreter lock. At
    most as many items are taken ahead as results have been yielded, and never more
    than twice the threads, so `items` may be a generator that leaves out what the
    first results make needless. Closing the generator waits for the calls that are
    running.

    Parameters
    ----------
    function : callable
        Must be safe to call from several threads.
    items : iterable
        Its arguments.

    Yields
    ------
    object
        What the function returns.

    Raises
    ------
    Exception
        What the function raises, in the order of the items.
    """
    threads = min(_MOST_THREADS, (os.cpu_count() or 1) + 4)
    waiting: deque[Future[R]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="affmae-images")
    yielded = 0
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > min(yielded, 2 * threads):
                yield waiting.popleft().result()
                yielded += 1
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
