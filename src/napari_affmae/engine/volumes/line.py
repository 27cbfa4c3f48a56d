"""A line of threads, of which one passes at a time."""

from collections import deque
from threading import Condition
from typing import Self


class Line:
    """Lets threads pass one at a time, in the order in which they have joined.

    A lock would let through whichever thread comes first after it was prepared.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._members: deque[Turn] = deque()

    def joined(self) -> "Turn":
        """Join now; who is still in the line at the end of a block with the turn leaves it."""
        return Turn(self._changed, self._members)


class Turn:
    """A place in a line, from `Line.joined`; another thread may take it."""

    def __init__(self, changed: Condition, members: "deque[Turn]") -> None:
        self._changed, self._members = changed, members
        with changed:
            members.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

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
