"""What the pool of images costs a run, reported now and then."""

from collections.abc import Generator
from dataclasses import asdict

from napari_affmae.data.pool.pool import Pool
from napari_affmae.engine.events import Event, Notice, PoolFilled
from napari_affmae.engine.store.run_folder import RunFolder
from napari_affmae.engine.wording import gigabytes


class PoolWatch:
    """Looks at a pool every few seconds of training.

    Parameters
    ----------
    pool : Pool
        Where crops are cut from.
    seconds : float
        From look to look.
    share : float
        Above this share of the time spent waiting, reading is what limits the run.
    """

    def __init__(self, pool: Pool, seconds: float, share: float) -> None:
        self._pool = pool
        self._seconds = seconds
        self._share = share
        self._looked = 0.0
        self._before = pool.state
        self._said = False

    def event(self, step: int) -> PoolFilled:
        """Say what the pool holds, and what it has cost so far."""
        state = self._pool.state
        return PoolFilled(step, state.held, state.capacity, state.total, state.read, state.waited)

    def look(self, step: int, elapsed: float, run: RunFolder) -> Generator[Event, None, None]:
        """Report and record what has changed, if it is time to.

        Parameters
        ----------
        step : int
            Steps made.
        elapsed : float
            Seconds spent in the run.
        run : RunFolder
            Where it is recorded.

        Yields
        ------
        Event
            `PoolFilled`, and once a `Notice` if reading limits the run.
        """
        seconds = elapsed - self._looked
        if self._looked and seconds < self._seconds:
            return
        state, before = self._pool.state, self._before
        self._looked, self._before = elapsed, state
        if state.read == before.read and state.waited == before.waited:
            return
        event = self.event(step)
        run.append_metrics({"event": "pool", **asdict(event)})
        yield event
        waited = state.waited - before.waited
        if not self._said and seconds >= self._seconds and waited > self._share * seconds:
            self._said = True
            rate = (state.read - before.read) / seconds
            yield Notice(
                f"reading limits this run: {waited / seconds:.0%} of the last {seconds:.0f} s went "
                f"by waiting for images, which come at {gigabytes(int(rate))} a second. A faster "
                "disk, uncompressed files, or fewer images would help"
            )
