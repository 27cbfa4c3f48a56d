"""A line of threads, of which one passes at a time."""

from collections import deque
from collections.abc import Iterator
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
    def joined(self) -> Iterator["Turn"]:
        """Join for a block of code; whoever is still in the line at its end leaves it."""
        turn = Turn(self._changed, self._members)
        try:
            yield turn
        finally:
            turn.leave()


class Turn:
    """A thread's place in a line, from `Line.joined`."""

    def __init__(self, changed: Condition, members: deque[object]) -> None:
        self._changed, self._members = changed, members
        with changed:
            members.append(self)

    def wait(self) -> None:
        """Wait until all who have joined before have left."""
        with self._changed:
            self._changed.wait_for(lambda: self._members[0] is self)

    def leave(self) -> None:
        """Let the next one through; more than once does nothing."""
        with self._changed:
            if self in self._members:
                self._members.remove(self)
                self._changed.notify_all()
