"""How long a run has taken and how fast it goes."""

from time import perf_counter


class Pace:
    """Smoothed duration of a step.

    The first step is kept out as soon as there is a second one: it carries
    compilation, allocation and the start of the prefetching threads. Later
    ones are averaged with weights that halve every `half_life` steps.

    Parameters
    ----------
    half_life : float
        Number of steps after which a duration counts half.
    """

    def __init__(self, half_life: float = 10.0) -> None:
        self._keep = 0.5 ** (1 / half_life)
        self._first: float | None = None
        self._sum = 0.0
        self._weight = 0.0

    def add(self, seconds: float) -> None:
        """Take in the duration of a step, in seconds."""
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
    """Time spent in a run, without its consumer's share.

    Parameters
    ----------
    elapsed : float
        Seconds to start from, where a run is resumed.
    """

    def __init__(self, elapsed: float = 0.0) -> None:
        self._before = elapsed
        self._since: float | None = None

    def start(self) -> None:
        """Count from here on."""
        self._since = perf_counter()

    def stop(self) -> None:
        """Do not count from here on."""
        self._before = self.elapsed
        self._since = None

    @property
    def elapsed(self) -> float:
        """Seconds counted so far."""
        return self._before + (0.0 if self._since is None else perf_counter() - self._since)
