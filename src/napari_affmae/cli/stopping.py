"""Ctrl-C, or the end of the terminal, ends a run after its step and leaves a checkpoint."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain
from types import FrameType

import typer
from rich.console import Console

from napari_affmae.cli.inputs import argument_errors
from napari_affmae.cli.terminal import close_output, say
from napari_affmae.engine.compute.distributed import is_member
from napari_affmae.engine.events import Event
from napari_affmae.errors import OtherStoppedError

STOPPED = 130
_STDERR = 2
# Sent when a terminal or a connection is closed; Windows has none.
_HANGUP = getattr(signal, "SIGHUP", None)


class StopRequest:
    """Notes the first signal; a second Ctrl-C stops at once, in the middle of a step.

    Not so other signals: that the terminal was closed is told twice, by the system and by the
    shell, and the end of its time by a cluster and by `torchrun`.

    Parameters
    ----------
    told : bool
        Whether to say that it was heard.
    """

    def __init__(self, *, told: bool) -> None:
        self.made = False
        self._told = told

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.made:
            if number != signal.SIGINT:
                return
            signal.default_int_handler(number, frame)
        self.made = True
        if not self._told:
            return
        # Python's own stream would refuse to be written to from inside a write, and the
        # signal may have interrupted one.
        with contextlib.suppress(OSError):  # the terminal may be gone
            # What starts several processes passes only the first signal on to them.
            again = b"" if is_member() else b" (once more: at once)"
            os.write(_STDERR, b"\nstopping after this step" + again + b"\n")


@contextlib.contextmanager
def stop_on_signal(*, told: bool) -> Iterator[StopRequest]:
    """Turn Ctrl-C, termination and hang-up into a request, for the time of a run."""
    request = StopRequest(told=told)
    numbers = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:  # nohup ignores it
        numbers.append(_HANGUP)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deliver(
    events: Generator[Event, None, None],
    listeners: Sequence[Callable[[Event], None]],
    console: Console,
    *,
    resume: str | None = None,
) -> None:
    """Give a run's events to the listeners, until it ends or a signal asks it to stop.

    A signal to another process of the run stops it, too, and so does a listener that finds the
    output closed.

    Parameters
    ----------
    events : Generator[Event]
        The run. It is closed whatever happens.
    listeners : Sequence[Callable]
        Each is called with each event, in this order.
    console : rich.console.Console
    resume : str or None
        The command that continues the run after a stop.

    Raises
    ------
    typer.BadParameter
        The run refuses its arguments.
    typer.Exit
        The run was closed before its end. The code is 130.
    """
    with stop_on_signal(told=not console.quiet) as request, contextlib.closing(events):
        if _to_the_end(events, listeners, console, request):
            return
    with contextlib.suppress(BrokenPipeError):
        say(console, "stopped" if resume is None else f"stopped; go on with: {resume}")
    raise typer.Exit(STOPPED)


def _to_the_end(
    events: Generator[Event, None, None],
    listeners: Sequence[Callable[[Event], None]],
    console: Console,
    request: StopRequest,
) -> bool:
    """Give events to the listeners; return whether the run came to its end."""
    try:
        with argument_errors():  # a run refuses arguments before its first event
            first = next(events)
        for event in chain([first], events):
            try:
                for listener in listeners:
                    listener(event)
            except BrokenPipeError:
                console.quiet = True
                close_output()
                return False
            if request.made:
                return False
    except OtherStoppedError:
        return False
    return True


def this_command(*extra: str) -> str:
    """Return the command that started this process, with further options at its end."""
    arguments = [argument for argument in sys.argv[1:] if argument not in extra]
    return shlex.join(["napari-affmae", *arguments, *extra])
