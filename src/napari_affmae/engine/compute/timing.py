"""How long a run has taken and how fast it goes."""

from time import perf_counter


class Pace:
    """Smoothed duration of a step.

    The first step is ignored as soon as there is a second one, because it includes
    compilation, allocation and the start of the prefetching threads. Later
    ones are averaged with weights that halve every `half_life` steps.

    Parameters
    ----------
    half_life : float
        Number of steps after which the weight of a duration is halved.
    """

    def __init__(self, half_life: float = 10.0) -> None:
        self._keep = 0.5 ** (1 / half_life)
        self._first: float | None = None
        self._sum = 0.0
        self._weight = 0.0

    def add(self, seconds: float) -> None:
        """Add the duration of a step, in seconds."""
        if self._first is None:
            self._first = seconds
            return
        self._sum = self._keep * self._sum + seconds
        self._weight = self._keep * self._weight + 1

    @property
    def seconds_per_step(self) -> float | None:
        """Smoothed duration of a step, or None before the first."""
        if self._weight:
            return self._sum / self._weight
        return self._first


class Stopwatch:
    """Time spent in a run, without the time that its consumer takes.

    Parameters
    ----------
    elapsed : float
        Seconds to start from, for a resumed run.
    """

    def __init__(self, elapsed: float = 0.0) -> None:
        self._before = elapsed
        self._since: float | None = None

    def start(self) -> None:
        """Start or go on counting."""
        self._since = perf_counter()

    def stop(self) -> None:
        """Stop counting."""
        self._before = self.elapsed
        self._since = None

    @property
    def elapsed(self) -> float:
        """Seconds counted so far."""
        return self._before + (0.0 if self._since is None else perf_counter() - self._since)
