"""Tells all docks that a run has ended in one of them."""

from functools import cache

from qtpy.QtCore import QObject, Signal


class EndedRuns(QObject):
    """What docks tell each other, that do not know each other."""

    happened = Signal()
    """A run has ended, whichever it was and however."""


@cache
def ended_runs() -> EndedRuns:
    """Return the one that all docks of the process share."""
    return EndedRuns()
