import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from napari_affmae.cli.progress import meter
from napari_affmae.cli.terminal import Terminal, printable, say

Cli = Callable[..., Any]
EVIL = "a\x1b]0;title\x07\x1b[2Jb\r\u202ec" + os.fsdecode(b"\xe9")


def test_what_can_be_read_stays() -> None:
    for text in ("café 5 µm", "two\nlines", "a\xa0b", ""):
        assert printable(text) == text


def test_control_characters_are_shown() -> None:
    shown = printable(EVIL)
    assert shown == "a\\x1b]0;title\\x07\\x1b[2Jb\\r\\u202ec\\udce9"
    assert printable(shown) == shown


@pytest.mark.parametrize("way", ["say", "table"])
def test_nothing_from_a_file_moves_the_cursor(way: str) -> None:
    text = io.StringIO()
    console = Terminal(file=text, width=200, force_terminal=False)
    if way == "say":
        say(console, EVIL, "red")
    else:
        table = Table(title=EVIL)
        table.add_row(EVIL)
        console.print(table)
    assert "\\x1b]0;title" in text.getvalue()
    assert text.getvalue().replace("\n", "").isprintable()


def test_a_bar_shows_names_as_they_are_read() -> None:
    text = io.StringIO()
    with meter(Terminal(file=text, width=200, force_terminal=True), EVIL) as progress:
        progress.update(1, 2, EVIL)
    assert "\\x1b]0;title" in text.getvalue()
    assert "\x1b]0;title" not in text.getvalue()


def test_colours_stay() -> None:
    text = io.StringIO()
    say(Terminal(file=text, force_terminal=True, color_system="standard"), "word", "red")
    assert "\x1b[31mword" in text.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such names cannot be")
def test_names_that_are_no_unicode_are_told(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9\x1b[2J")
    folder.mkdir()
    image = folder / os.fsdecode(b"\xe9.tif")
    image.write_bytes((data / "images" / "a.tif").read_bytes())
    for path, code in ((image, 0), (folder / "nothing", 2)):
        command = [sys.executable, "-m", "napari_affmae", "info", path]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        assert (b"\\udce9" in done.stdout) == (code == 0)
        assert b"\x1b" not in done.stdout + done.stderr
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("Unable to allocate 3 GiB")])
def test_too_little_memory_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: MemoryError
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("napari_affmae.cli.info.run_info", fail)
    done = cli("info")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "memory" in done.err
    assert str(error) in done.err
    assert "--tile" not in done.err


def test_too_little_memory_names_the_options_that_help(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("napari_affmae.cli.segment.run_segment", fail)
    done = cli("segment", tmp_path, "--model", tmp_path, "--out", tmp_path / "out")
    assert "a smaller --tile or --batch" in done.err
