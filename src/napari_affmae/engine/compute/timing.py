"""How long a run has taken and how fast it goes."""

from time import perf_counter

# By how much the first time of what is done now and then may exceed its share.
_FIRST = 10


class Pace:
    """Smoothed duration of a step.

    The first step is ignored as soon as there is a second one, because it includes
    compilation, allocation and the reading of the first images. Later
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
    def is_settled(self) -> bool:
        """Whether as many steps were timed as halve a step's weight."""
        return bool(self._weight > 0.5 / (1 - self._keep))

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

    def discount(self, seconds: float) -> None:
        """Take back seconds that were counted."""
        self._before -= seconds

    @property
    def elapsed(self) -> float:
        """Seconds counted so far."""
        return self._before + (0.0 if self._since is None else perf_counter() - self._since)


class Spacing:
    """Says when something that costs time is due again, so that it takes a small share of it.

    Parameters
    ----------
    least : float
        Seconds from one time to the next, at least.
    share : float
        Of the time, at most, for what is done.
    growth : float
        By which factor of the time so far the next time comes later.
    """

    def __init__(self, least: float, share: float, growth: float = 0.0) -> None:
        self._least = least
        self._share = share
        self._growth = growth
        self._next: float | None = None
        self._is_first = True

    def is_due(self, elapsed: float) -> bool:
        """Tell whether it is due, `elapsed` seconds after the start; at once before `done`."""
        return self._next is None or elapsed >= self._next

    def wait(self, elapsed: float) -> None:
        """Note that it need not be done at once."""
        self._next = elapsed + self._least

    def done(self, elapsed: float, seconds: float) -> None:
        """Note that it was done, and that this took so many seconds."""
        # The first time holds what is done only once, such as compiling kernels.
        share = self._share * (_FIRST if self._is_first else 1)
        self._is_first = False
        self._next = elapsed + max(self._least, seconds / share, self._growth * elapsed)
