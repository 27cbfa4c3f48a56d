"""A line of threads, of which one passes at a time."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition


class Line:
    """Lets threads pass one at a time, in the order in which they have joined.

    A lock would let through whichever thread comes first after it was prepared.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._members: deque[object] = deque()

    @contextmanager
    def joined(self) -> Iterator[Callable[[], None]]:
        """Join for a block, which calls what it is given to wait until all before have left."""
        member = object()
        with self._changed:
            self._members.append(member)
        try:
            yield lambda: self._wait(member)
        finally:
            with self._changed:
                self._members.remove(member)
                self._changed.notify_all()

    def _wait(self, member: object) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._members[0] is member)
