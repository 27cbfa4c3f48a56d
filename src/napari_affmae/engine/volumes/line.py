"""A line of threads, of which one passes at a time."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Condition


class Line:
    """Lets threads pass one at a time, in the order in which they have joined.

    A lock would let through whichever thread comes first after it was prepared.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._members: deque[object] = deque()

    def joined(self) -> AbstractContextManager[Callable[[], None]]:
        """Join now, and leave with a block of code, which may come later and in another thread.

        The block calls what it is given to wait until all before it have left.
        """
        member = object()
        with self._changed:
            self._members.append(member)
        return self._staying(member)

    @contextmanager
    def _staying(self, member: object) -> Iterator[Callable[[], None]]:
        try:
            yield lambda: self._wait(member)
        finally:
            with self._changed:
                self._members.remove(member)
                self._changed.notify_all()

    def _wait(self, member: object) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._members[0] is member)
