"""What a run tells, on a terminal or in a log file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from napari_affmae.engine import events as ev
from napari_affmae.engine.words import duration

SECONDS_BETWEEN_LINES = 10.0


class Meter(Protocol):
    """Shows how far the work is."""

    def update(self, done: float, total: int | None, text: str) -> None:
        """Show that `done` of `total` is done, and what there is to say about it."""


class _Bar:
    def __init__(self, progress: Progress, task: str) -> None:
        self._progress = progress
        self._task = progress.add_task(task, total=None, text="")

    def update(self, done: float, total: int | None, text: str) -> None:
        self._progress.update(self._task, completed=done, total=total, text=text)


class _Lines:
    """One line now and then, for logs."""

    def __init__(self, console: Console, task: str) -> None:
        self._console = console
        self._task = task
        self._last = -SECONDS_BETWEEN_LINES

    def update(self, done: float, total: int | None, text: str) -> None:
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES and done != total:
            return
        self._last = now
        of = "" if total is None else f"/{total}"
        self._console.print(
            f"{self._task}: {int(done)}{of}  {text}", highlight=False, soft_wrap=True
        )


@contextmanager
def meter(console: Console, task: str) -> Iterator[Meter]:
    """Show a bar where the console is a terminal, else a line every ten seconds."""
    if not console.is_terminal:
        yield _Lines(console, task)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, task)


class Reporter:
    """Words for every event of a run.

    Parameters
    ----------
    console : rich.console.Console
        Where to; standard error, so that results can be piped.
    meter : Meter
        Shows the progress.
    planes : int or None
        Planes that a segmentation goes over; None in training, where tiles come
        from validations in between and are no progress.
    start : bool
        Whether to say where the run computes: not again for the next of many images.
    """

    def __init__(
        self, console: Console, meter: Meter, *, planes: int | None = None, start: bool = True
    ) -> None:
        self._console = console
        self._meter = meter
        self._planes = planes
        self._start = start
        self._expected = False

    def show(self, event: ev.Event) -> None:
        """Tell about one event."""
        match event:
            case ev.RunStarted():
                self._tell_start(event)
            case ev.Notice():
                source = f"{event.source}: " if event.source else ""
                self._say(f"{event.level}: {source}{event.message}", _STYLES.get(event.level))
            case ev.StepDone():
                self._expect(event)
                self._meter.update(event.step, event.total_steps, _step(event))
            case ev.MicroBatchHalved():
                self._say(
                    f"warning: out of memory at step {event.step}; going on with "
                    f"{event.accumulate} x {event.micro_batch} images a step",
                    "yellow",
                )
            case ev.Validated():
                self._say(_validation(event))
            case ev.TileDone():
                self._count_tile(event)
            case ev.PlanProgress():
                self._meter.update(event.done, event.total, "trying a step")
            case ev.RunFinished():
                self._say(f"finished: {event.path}", "bold")
            case (
                ev.PreviewReady()
                | ev.CheckpointSaved()
                | ev.BandDone()
                | ev.PlaneDone()
                | ev.PlanMeasured()
            ):
                pass
            case _:
                raise TypeError(f"no words for the event {event!r}")

    def _tell_start(self, event: ev.RunStarted) -> None:
        if self._start:
            self._say(_start(event))

    def _count_tile(self, event: ev.TileDone) -> None:
        if self._planes is not None:
            done = event.plane + event.done / event.total
            self._meter.update(done, self._planes, _tile(event))

    def _expect(self, event: ev.StepDone) -> None:
        """Say once how long the run will take, as soon as its steps were timed."""
        if not self._expected and event.seconds_left is not None:
            self._expected = True
            self._say(
                f"expected time: {duration(event.seconds_left)} "
                f"({event.images_per_second:.3g} images/s measured)"
            )

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(escape(text), style=style, highlight=False, soft_wrap=True)


_STYLES = {"warning": "yellow", "error": "red"}


def _start(event: ev.RunStarted) -> str:
    parts = (
        f" ({event.batch // event.micro_batch} parts)" if event.micro_batch < event.batch else ""
    )
    at = f", going on after step {event.step}" if event.step else ""
    return (
        f"device: {event.device}; precision: {event.precision}; backend: {event.backend}; "
        f"{event.parameters / 1e6:.1f} M parameters; batch: {event.batch}{parts}{at}"
    )


def _step(event: ev.StepDone) -> str:
    speed = f"{event.images_per_second:.3g} images/s"
    return f"loss {event.loss:.4f}  {speed}{_left(event.seconds_left)}"


def _tile(event: ev.TileDone) -> str:
    tile = f"tile {event.done} of {event.total} of plane {event.plane + 1}"
    return f"{tile}{_left(event.seconds_left)}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"  {duration(seconds)} left"


def _validation(event: ev.Validated) -> str:
    scores = ""
    if event.mean_iou is not None and event.mean_dice is not None:
        scores = f", mIoU {event.mean_iou:.3f}, mDice {event.mean_dice:.3f}"
    best = ", the best so far" if event.best else ""
    return f"step {event.step}: validation loss {event.loss:.4f}{scores}{best}"
