import errno
import io
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
import typer
from rich.console import Console

from napari_affmae.cli.stopping import STOPPED, deliver, this_command
from napari_affmae.cli.terminal import Terminal, say
from napari_affmae.engine.events import Event, Notice
from napari_affmae.errors import OtherStoppedError


class Run:
    """A run of numbered notices that says whether it was closed."""

    def __init__(self, steps: int) -> None:
        self.closed = False
        self.events = self._events(steps)

    def _events(self, steps: int) -> Generator[Event, None, None]:
        try:
            for step in range(steps):
                yield Notice(str(step))
        finally:
            self.closed = True


def numbers(seen: list[Event]) -> list[int]:
    return [int(event.message) for event in seen if isinstance(event, Notice)]


def interrupt(number: int) -> None:
    os.kill(os.getpid(), number)


HANGUP = getattr(signal, "SIGHUP", None)
needs_hangup = pytest.mark.skipif(HANGUP is None, reason="a signal of Unix")


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, pytest.param(HANGUP, marks=needs_hangup)],
)
def test_a_signal_ends_the_run_after_its_step_and_tells_how_to_go_on(number: int) -> None:
    seen: list[Event] = []
    text = io.StringIO()
    before = signal.getsignal(number)

    def listener(event: Event) -> None:
        seen.append(event)
        if len(seen) == 2:
            interrupt(number)

    run = Run(5)
    with pytest.raises(typer.Exit) as stopped:
        deliver(run.events, [listener], Console(file=text, width=200), resume="again")
    assert stopped.value.exit_code == STOPPED
    assert numbers(seen) == [0, 1]
    assert run.closed
    assert "stopped; go on with: again" in text.getvalue()
    assert signal.getsignal(number) is before


def test_a_signal_in_the_middle_of_a_write_stops_like_any_other(tmp_path: Path) -> None:
    class Interrupting(io.FileIO):
        sent = False

        def write(self, data: bytes) -> int:
            if not self.sent:
                self.sent = True
                interrupt(signal.SIGINT)
            return super().write(data)

    # Like Python's standard error, a buffer that refuses to be written to from inside a write.
    buffer = io.BufferedWriter(Interrupting(tmp_path / "stderr", "w"))
    with io.TextIOWrapper(buffer, write_through=True) as stream:
        console = Console(file=stream, width=200)
        with pytest.raises(typer.Exit):
            deliver(Run(5).events, [lambda _: console.print("step")], console)


def test_a_second_interrupt_does_not_wait() -> None:
    def listener(_: Event) -> None:
        interrupt(signal.SIGINT)
        interrupt(signal.SIGINT)

    run = Run(5)
    with pytest.raises(KeyboardInterrupt):
        deliver(run.events, [listener], Console(file=io.StringIO()))
    assert run.closed


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(HANGUP, marks=needs_hangup)])
def test_what_may_be_told_twice_is_one_request_and_the_step_is_finished(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal was closed, or the time of a cluster is over."""
    monkeypatch.setattr("napari_affmae.cli.stopping._STDERR", -1)  # it is gone

    def listener(_: Event) -> None:
        interrupt(number)
        interrupt(number)

    run = Run(5)
    with pytest.raises(typer.Exit):
        deliver(run.events, [listener], Console(file=io.StringIO()))
    assert run.closed


@needs_hangup
def test_nohup_holds() -> None:
    before = signal.signal(HANGUP, signal.SIG_IGN)
    try:
        seen: list[Event] = []
        deliver(Run(2).events, [seen.append, lambda _: interrupt(HANGUP)], Console(quiet=True))
        assert numbers(seen) == [0, 1]
    finally:
        signal.signal(HANGUP, before)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO])
def test_a_run_that_nobody_hears_is_closed(number: int) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(number, os.strerror(number))

    console = Terminal(file=Closed())
    run = Run(5)
    with pytest.raises(typer.Exit) as stopped:
        deliver(run.events, [lambda _: say(console, "step")], console)
    assert stopped.value.exit_code == STOPPED
    assert run.closed


def test_a_signal_to_another_process_of_the_run_stops_this_one_too() -> None:
    def helped() -> Generator[Event, None, None]:
        yield Notice("0")
        raise OtherStoppedError("another process of this run was asked to stop")

    text = io.StringIO()
    with pytest.raises(typer.Exit) as stopped:
        deliver(helped(), [], Console(file=text, width=200), resume="again")
    assert stopped.value.exit_code == STOPPED
    assert "stopped; go on with: again" in text.getvalue()


def test_a_run_goes_to_its_end_through_all_listeners() -> None:
    one: list[Event] = []
    two: list[Event] = []
    deliver(Run(3).events, [one.append, two.append], Console(file=io.StringIO()))
    assert numbers(one) == numbers(two) == [0, 1, 2]


def test_what_a_run_refuses_at_its_start_is_a_wrong_argument() -> None:
    def refusing() -> Generator[Event, None, None]:
        raise ValueError("steps: too few")
        yield

    with pytest.raises(typer.BadParameter, match="too few"):
        deliver(refusing(), [], Console(file=io.StringIO()))


def test_an_error_later_keeps_its_kind() -> None:
    def failing() -> Generator[Event, None, None]:
        yield Notice("0")
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        deliver(failing(), [], Console(file=io.StringIO()))


def test_this_command_repeats_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(Path("my images"))
    monkeypatch.setattr("sys.argv", ["/bin/x", "pretrain", "--resume", folder])
    assert this_command("--resume") == "napari-affmae pretrain 'my images' --resume"
