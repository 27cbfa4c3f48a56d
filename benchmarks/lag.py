"""How long napari's event loop keeps a user waiting."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from qtpy.QtCore import QEventLoop, QTimer

#: What is aimed at, milliseconds.
TARGETS = {"95 % of lags, ms": 50, "longest lag, ms": 250}
_TICK = 10  # milliseconds of the timer that watches the event loop
_LOOK = 20  # milliseconds between looks at whether something is so


class LagMeter:
    """Notes by how much a timer of the window's thread is late."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setInterval(_TICK)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        now = time.perf_counter()
        self._lags.append(max(0.0, 1000 * (now - self._last) - _TICK))
        self._last = now

    def take(self) -> list[float]:
        """Return the lags since the last call, milliseconds, and begin anew."""
        taken, self._lags = self._lags, []
        self._last = time.perf_counter()
        return taken


def described(lags: Sequence[float]) -> dict[str, float]:
    """Sum up lags as columns of a table."""
    return {
        "median lag, ms": round(float(np.median(lags)), 1),
        "95 % of lags, ms": round(float(np.percentile(lags, 95)), 1),
        "longest lag, ms": round(float(np.max(lags)), 1),
    }


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
