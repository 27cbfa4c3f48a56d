"""How long napari's event loop keeps a user waiting."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from qtpy.QtCore import QEventLoop, QTimer

#: What is aimed at, milliseconds.
TARGETS = {"95 % of lags, ms": 50, "longest lag, ms": 250}
_TICK = 10  # milliseconds of the timer that watches the event loop
_LOOK = 20  # milliseconds between looks at whether something is so


@dataclass
class Lags:
    """By how much a timer of the window's thread was late, and how long that thread worked.

    On a machine with other work the first is longer than the second, which is what would remain
    of it if the thread never had to wait for a core or another thread. Both in milliseconds.
    """

    late: list[float] = field(default_factory=list)
    worked: list[float] = field(default_factory=list)

    def extend(self, others: "Lags") -> None:
        """Add those of another time."""
        self.late += others.late
        self.worked += others.worked

    def described(self) -> dict[str, float]:
        """Sum them up as columns of a table."""
        return {
            "median lag, ms": round(float(np.median(self.late)), 1),
            "95 % of lags, ms": round(float(np.percentile(self.late, 95)), 1),
            "longest lag, ms": round(float(np.max(self.late)), 1),
            "longest work, ms": round(float(np.max(self.worked)), 1),
        }


class LagMeter:
    """Measures lags of the window's thread with a timer."""

    def __init__(self) -> None:
        self._lags = Lags()
        self._last, self._work = time.perf_counter(), time.thread_time()
        self._timer = QTimer()
        self._timer.setInterval(_TICK)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        now, work = time.perf_counter(), time.thread_time()
        self._lags.late.append(max(0.0, 1000 * (now - self._last) - _TICK))
        self._lags.worked.append(1000 * (work - self._work))
        self._last, self._work = now, work

    def take(self) -> Lags:
        """Return what was measured since the last call, and begin anew."""
        taken, self._lags = self._lags, Lags()
        self._last, self._work = time.perf_counter(), time.thread_time()
        return taken


def live(done: Callable[[], bool], seconds: float) -> bool:
    """Let the window live until something is so; return whether it is within the time."""
    loop, looking, end = QEventLoop(), QTimer(), time.perf_counter() + seconds

    def look() -> None:
        if done() or time.perf_counter() > end:
            loop.quit()

    looking.timeout.connect(look)
    looking.start(_LOOK)
    loop.exec_()
    looking.stop()
    return done()
