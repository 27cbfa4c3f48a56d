"""What a run tells, on a terminal or in a log file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from napari_affmae.cli.terminal import say
from napari_affmae.engine import events as ev
from napari_affmae.engine import wording

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
        say(self._console, f"{self._task}: {int(done)}{of}  {text}")


@contextmanager
def meter(console: Console, task: str, *, keep: bool = True) -> Iterator[Meter]:
    """Show a bar where the console is a terminal, else a line every ten seconds.

    Parameters
    ----------
    console : rich.console.Console
        Where to.
    task : str
        What is done.
    keep : bool
        Whether the bar stays when it is done.
    """
    if not console.is_terminal:
        yield _Lines(console, task)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console, transient=not keep) as progress:
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
        Whether to say where the run computes, and what it starts with: not again for the next
        of many images.
    """

    def __init__(
        self, console: Console, meter: Meter, *, planes: int | None = None, start: bool = True
    ) -> None:
        self._console = console
        self._meter = meter
        self._planes = planes
        self._start = start
        self._expected = False

    def show(self, event: ev.Event) -> None:  # noqa: C901, PLR0912 - one branch an event
        """Tell about one event."""
        match event:
            case ev.RunStarted():
                self._tell_start(event)
            case ev.Notice():
                self._tell_notice(event)
            case ev.StepDone():
                self._expect(event)
                self._meter.update(event.step, event.total_steps, wording.step(event))
            case ev.PoolFilled() if event.step == 0:
                self._meter.update(0, None, wording.pool(event))
            case ev.MicroBatchHalved():
                self._say(f"warning: {wording.halved(event)}", "yellow")
            case ev.Validated():
                self._say(wording.validated(event))
            case ev.TileDone():
                self._count_tile(event)
            case ev.FilesLookedAt():
                self._meter.update(event.count, None, "files looked at")
            case ev.TilesDone():
                self._meter.update(event.done, event.total, wording.tiles(event))
            case ev.ObjectsProgress():
                self._meter.update(event.done, event.total, wording.objects(event))
            case ev.ObjectsWritten():
                self._say(f"wrote {event.path} and {event.table}: {event.count} objects")
            case ev.PlanProgress():
                self._meter.update(event.done, event.total, "trying a step")
            case ev.ExportStep():
                self._meter.update(event.done, event.total, event.doing)
            case ev.Exported():
                self._say(f"wrote {event.path}")
            case ev.RunFinished():
                self._say(f"finished: {event.path}", "bold")
            case (
                ev.PoolFilled()
                | ev.PreviewReady()
                | ev.CheckpointSaved()
                | ev.BandDone()
                | ev.BlockDone()
                | ev.ResultBegun()
                | ev.PlaneDone()
                | ev.HelperStep()
                | ev.PlanMeasured()
            ):
                pass
            case _:
                raise TypeError(f"no words for the event {event!r}")

    def _tell_start(self, event: ev.RunStarted) -> None:
        if self._start:
            self._say(wording.started(event))

    def _tell_notice(self, event: ev.Notice) -> None:
        if self._start or event.level != "info":
            source = f"{event.source}: " if event.source else ""
            self._say(f"{event.level}: {source}{event.message}", _STYLES.get(event.level))

    def _count_tile(self, event: ev.TileDone) -> None:
        if self._planes is not None:
            done = event.plane + event.done / event.total
            self._meter.update(done, self._planes, wording.tile(event))

    def _expect(self, event: ev.StepDone) -> None:
        """Say once how long the run will take, as soon as its steps were timed."""
        if not self._expected and event.seconds_left is not None:
            self._expected = True
            self._say(
                f"expected time: {wording.duration(event.seconds_left)} "
                f"({event.images_per_second:.3g} images/s measured)"
            )

    def _say(self, text: str, style: str | None = None) -> None:
        say(self._console, text, style)


_STYLES = {"warning": "yellow", "error": "red"}
