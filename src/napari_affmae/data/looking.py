"""Searches that tell how far they are: generators of counts, which return what was found."""

import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

#: Yields how many things were looked at, and returns what was found.
Looking = Generator[int, None, T]

# Small folders are found before there is anything to say.
_FIRST_SECONDS = 0.5
_SECONDS = 0.2


class Ticks:
    """Counts, and tells the count some times a second."""

    def __init__(self) -> None:
        self._count = 0
        self._next = time.monotonic() + _FIRST_SECONDS

    def count(self) -> Iterator[int]:
        """Count one more, and yield the count where it is time."""
        self._count += 1
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS
            yield self._count


def _ignore(count: int) -> None:
    """Do nothing with a count."""


def followed(looking: Looking[T], tell: Callable[[int], None] = _ignore) -> T:
    """Search to the end, and return what was found.

    Parameters
    ----------
    looking : generator
        The search.
    tell : callable
        Called with each count. What it raises ends the search.
    """
    try:
        while True:
            tell(next(looking))
    except StopIteration as stop:
        found: T = stop.value
        return found
    finally:
        looking.close()
