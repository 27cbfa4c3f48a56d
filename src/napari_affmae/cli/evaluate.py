"""The command that measures a network against labels."""

import json
import math
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from napari_affmae.cli.inputs import Pair, Reading, check_exists, open_pairs
from napari_affmae.cli.options import Given, build
from napari_affmae.cli.progress import Reporter, meter
from napari_affmae.cli.stopping import deliver
from napari_affmae.cli.terminal import Terminal
from napari_affmae.config import SegmentConfig
from napari_affmae.engine import Scores
from napari_affmae.engine.events import Event
from napari_affmae.engine.inference.evaluation import scoring


def run_evaluate(
    images: Path,
    labels: Path,
    model: Path,
    given: Given,
    *,
    reading: Reading,
    as_json: bool,
    console: Console,
) -> None:
    """Segment labelled images and print the scores to standard output.

    Parameters
    ----------
    images, labels : Path
        Files or folders of the same names.
    model : Path
        A fine-tuned run or model file.
    given : dict[str, Any]
        Settings that were given, unchecked.
    reading : Reading
        Axes and channels of the images.
    as_json : bool
        JSON instead of a table.
    console : rich.console.Console
        Where progress is shown.
    """
    config = build(SegmentConfig, given)
    check_exists(model)
    pairs = open_pairs(images, labels, reading, console)
    scores = measure(pairs, model, config, console)
    output = Terminal()
    if as_json:
        output.print_json(json.dumps(_plain(scores)))
    else:
        output.print(score_table(scores))


def measure(pairs: Sequence[Pair], model: Path, config: SegmentConfig, console: Console) -> Scores:
    """Segment labelled images and compute the scores, showing the progress.

    Parameters
    ----------
    pairs : Sequence[tuple[ImageSource, ImageSource]]
        Images and labels.
    model : Path
        A fine-tuned run or model file.
    config : SegmentConfig
        Tiles, device and precision.
    console : rich.console.Console
        Where progress is shown.

    Raises
    ------
    typer.Exit
        It was stopped, or the output was closed.
    """
    planes = sum(image.n_planes for image, _ in pairs)
    found: list[Scores] = []

    def events() -> Generator[Event, None, None]:
        found.append((yield from scoring(pairs, model, config)))

    with meter(console, "evaluate") as progress:
        reporter = Reporter(console, progress, planes=planes)
        deliver(events(), [reporter.show], console)
    return found[0]


def score_table(scores: Scores) -> Table:
    """Make a table of IoU and Dice by class, and their means.

    Parameters
    ----------
    scores : Scores
        Over the whole set.
    """
    columns = Table("class", show_footer=False)
    columns.add_column("IoU", justify="right")
    columns.add_column("Dice", justify="right")
    for name, iou in scores.iou.items():
        columns.add_row(escape(name), _number(iou), _number(scores.dice[name]))
    columns.add_section()
    columns.add_row("mean", _number(scores.mean_iou), _number(scores.mean_dice), style="bold")
    return columns


def _number(value: float) -> str:
    return "absent" if math.isnan(value) else f"{value:.3f}"


def _plain(scores: Scores) -> dict[str, Any]:
    """Convert the scores to JSON values; a class that occurs nowhere has null."""
    rows = {
        name: {"iou": _or_null(iou), "dice": _or_null(scores.dice[name])}
        for name, iou in scores.iou.items()
    }
    return {
        "classes": rows,
        "mean_iou": _or_null(scores.mean_iou),
        "mean_dice": _or_null(scores.mean_dice),
        "confusion": scores.confusion.tolist(),
    }


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value
