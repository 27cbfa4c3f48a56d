"""Length of a run: a number of steps or a time."""

from dataclasses import dataclass

from napari_affmae.config import TrainingConfig


@dataclass(frozen=True)
class Length:
    """Length of a run: a number of steps or a time.

    Attributes
    ----------
    steps : int or None
        Optimiser steps, or None in a run by time.
    seconds : float or None
        Time spent in the run (pauses of its consumer do not count), or None.
    """

    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, config: TrainingConfig) -> "Length":
        """Read the length from a configuration."""
        return cls(config.steps, None if config.minutes is None else 60 * config.minutes)

    def progress(self, step: int, elapsed: float) -> float:
        """Return which share of the run is over.

        Parameters
        ----------
        step : int
            Number of the step that is about to be made, from 1.
        elapsed : float
            Seconds spent in the run so far.

        Returns
        -------
        float
            From 0 to 1; exactly 1 in the last step of a run by steps.
        """
        if self.steps is not None:
            return min(step / self.steps, 1.0)
        return min(elapsed / self._seconds, 1.0)

    def over(self, step: int, elapsed: float) -> bool:
        """Return whether the run ends after `step` steps and `elapsed` seconds."""
        if self.steps is not None:
            return step >= self.steps
        return elapsed >= self._seconds

    def total_steps(self, step: int, elapsed: float, seconds_per_step: float | None) -> int | None:
        """Return the number of steps of the whole run, which is an estimate in a run by time."""
        if self.steps is not None:
            return self.steps
        if seconds_per_step is None:
            return None
        return step + max(0, round((self._seconds - elapsed) / seconds_per_step))

    def seconds_left(
        self, step: int, elapsed: float, seconds_per_step: float | None
    ) -> float | None:
        """Estimate the time to the end; None until steps were timed."""
        if self.steps is None:
            return max(0.0, self._seconds - elapsed)
        if seconds_per_step is None:
            return None
        return max(0, self.steps - step) * seconds_per_step

    @property
    def _seconds(self) -> float:
        if self.seconds is None:
            raise ValueError("a run needs steps or seconds")
        return self.seconds
