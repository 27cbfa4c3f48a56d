"""Converts arguments of the command line to sources and settings of the engine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console

from napari_affmae.cli.progress import meter
from napari_affmae.cli.terminal import say
from napari_affmae.config import RUN_FILE, LabelClass
from napari_affmae.data import (
    ImageSource,
    default_classes,
    followed,
    look_for_pairs,
    look_for_sources,
    told,
)
from napari_affmae.data.formats.files.paths import shown, url_of
from napari_affmae.data.formats.opening.recipe import split_inner
from napari_affmae.data.looking import Looking
from napari_affmae.data.sources.flipped import FlippedSource
from napari_affmae.data.sources.layout import parse_channels
from napari_affmae.engine.store.run_folder import never_began
from napari_affmae.errors import DataError

Pair = tuple[ImageSource, ImageSource]
T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """The options ``--axes``, ``--channels`` and others, which say how files are read."""

    axes: str | None = None
    channels: str | None = None
    flip_rows: bool = False
    label_axes: str | None = None

    def chosen_channels(self) -> tuple[int, ...] | None:
        """Return the channels to take; None for all."""
        return None if self.channels is None else parse_channels(self.channels)


@contextmanager
def argument_errors() -> Iterator[None]:
    """Report a wrong argument of the library as a wrong argument of the command.

    Raises
    ------
    typer.BadParameter
        In place of `ValueError` and `TypeError`.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from error


def check_exists(*paths: Path) -> None:
    """Check that paths exist; ``file.h5:/dataset`` and ``folder:/dataset`` name a part.

    Addresses of the web are asked for when they are opened.

    Raises
    ------
    typer.BadParameter
        If a path does not exist; the message names the first one.
    """
    for path in paths:
        if url_of(path) is None and not split_inner(str(path))[0].exists():
            raise typer.BadParameter(f"{path} does not exist")


def check_folder(folder: Path) -> None:
    """Check that no file is in the place of a folder of results.

    Raises
    ------
    typer.BadParameter
        If there is one; the message names it.
    """
    for part in (folder, *folder.parents):
        if part.is_file():
            raise typer.BadParameter(
                f"--out: {folder} cannot be a folder of results, because {part} is a file; "
                "choose another folder"
            )


def open_images(
    paths: Sequence[Path], reading: Reading, console: Console, *, labels: bool = False
) -> list[ImageSource]:
    """Open all images, or labels, among files and folders, and print which files were left out.

    Parameters
    ----------
    paths : Sequence[Path]
        Files and folders.
    reading : Reading
        Axes and channels of the images.
    console : rich.console.Console
        Where to print.
    labels : bool
        Whether they are label images, of which none is left out for being one.

    Raises
    ------
    typer.BadParameter
        A path does not exist, or axes or channels do not fit.
    DataError
        There is no image.
    """
    check_exists(*paths)
    with argument_errors():
        looking = look_for_sources(
            paths, axes=reading.axes, channels=reading.chosen_channels(), labels=labels
        )
        found = _shown(looking, "images", console)
    for line in told(found.skipped):
        say(console, f"warning: left out: {line}", "yellow")
    if found.others.counts:
        say(console, f"info: files of other kinds: {found.others}")
    if not found.sources:
        raise DataError(f"no image found in {', '.join(map(shown, paths))}{_why(paths)}")
    return (
        [FlippedSource(source) for source in found.sources] if reading.flip_rows else found.sources
    )


def _shown(looking: Looking[T], what: str, console: Console) -> T:
    """Search to the end, and show how many were looked at."""
    with meter(console, f"looking for {what}", keep=False) as progress:
        return followed(looking, lambda count: progress.update(count, None, "looked at"))


def _why(paths: Sequence[Path]) -> str:
    """Say which of the paths are folders of runs, which hold no images to read."""
    begun = [path for path in paths if never_began(path)]
    runs = [path for path in paths if (path / RUN_FILE).is_file()]
    if begun:
        return (
            f": {begun[0]} is the folder of a run that ended before its first record "
            f"({RUN_FILE}). Start that run anew, or delete the folder; give images as input"
        )
    return f": {runs[0]} is the folder of a run; give images as input" if runs else ""


def open_pairs(images: Path, labels: Path, reading: Reading, console: Console) -> list[Pair]:
    """Open images and the label images of the same names, and print what was left out.

    Raises
    ------
    typer.BadParameter
        A path does not exist, or axes or channels do not fit.
    """
    check_exists(images, labels)
    with argument_errors():
        looking = look_for_pairs(
            images,
            labels,
            axes=reading.axes,
            label_axes=reading.label_axes,
            channels=reading.chosen_channels(),
            tell=lambda line: say(console, f"warning: {line}", "yellow"),
        )
        return _shown(looking, "pairs", console)


def parse_classes(words: Sequence[str]) -> list[LabelClass]:
    """Read classes given as ``VALUE=NAME`` or ``VALUE=NAME=#rrggbb``.

    Raises
    ------
    typer.BadParameter
        A text has another form, or two classes have the same value.
    """
    parsed: dict[int, tuple[str, str]] = {}
    for word in words:
        value, _, rest = word.partition("=")
        name, _, color = rest.partition("=")
        if not (value.isdecimal() and name):
            raise typer.BadParameter(
                f"--class: expected VALUE=NAME, for instance 1=axon, got {word!r}"
            )
        if int(value) in parsed:
            raise typer.BadParameter(f"--class: value {value} is given twice")
        parsed[int(value)] = (name, color)
    return [_named(known, *parsed[known.value]) for known in default_classes(sorted(parsed))]


def _named(known: LabelClass, name: str, color: str) -> LabelClass:
    try:
        return LabelClass(value=known.value, name=name, color=color or known.color)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise typer.BadParameter(f"--class: {known.value}={name}={color}: {reason}") from error
