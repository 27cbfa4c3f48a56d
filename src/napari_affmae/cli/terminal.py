"""Text on its way to a terminal or a log: the one place where it is made harmless."""

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment


def printable(text: str) -> str:
    """Show control characters as escapes; they come from names and notes in files.

    A terminal would obey them, and a log could not be read. Ends of lines stay.

    Parameters
    ----------
    text : str
        Any text, also of bytes that are not Unicode.
    """
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() or mark in "\n\xa0" else mark.encode("unicode_escape").decode()
        for mark in text
    )


class Terminal(Console):
    """A console that shows control characters as escapes.

    Parameters
    ----------
    stderr : bool
        Standard error instead of standard output.
    **options : Any
        See `rich.console.Console`.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as `rich.console.Console` does, and escape control characters."""
        for segment in super().render(renderable, options):
            # Rich's own, which move the cursor.
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `rich.console.Console` does.

        Raises
        ------
        BrokenPipeError
            If the terminal is closed, or the program that read the output has ended.
        """
        try:
            super().print(*objects, **options)
        except OSError as error:
            # Without a number: where it is that of a closed pipe, typer ends the process itself.
            raise BrokenPipeError("nobody reads the output any more") from error

    def on_broken_pipe(self) -> None:
        """Leave it to the caller what to do, which may have a run to save."""
        raise BrokenPipeError


def close_output() -> None:
    """Let what is still to be written vanish, where nobody reads it any more.

    Python would try once more when it exits, and change the exit code.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a stream of another program's
                os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is: without markup, colours by guess, or line breaks.

    Parameters
    ----------
    console : rich.console.Console
        Where to.
    text : str
        One message.
    style : str, optional
        Such as ``"yellow"``.
    """
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
