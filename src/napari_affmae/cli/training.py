"""The commands that train."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from napari_affmae.cli.devices import on_devices
from napari_affmae.cli.inputs import (
    Pair,
    Reading,
    check_folder,
    open_images,
    open_pairs,
    parse_classes,
)
from napari_affmae.cli.options import Given, build
from napari_affmae.cli.progress import Reporter, meter
from napari_affmae.cli.stopping import deliver, this_command
from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.engine import describe_plan, finetune, measure_plan, pretrain
from napari_affmae.engine.compute.distributed import Team
from napari_affmae.engine.events import Event, PlanMeasured
from napari_affmae.engine.store.run_folder import read_config
from napari_affmae.engine.store.starting_weights import AUTO, NOTHING, Start
from napari_affmae.engine.training.labelled_data import settle_classes

_LENGTH = {"steps", "minutes"}


def parse_start(text: str | None) -> Start:
    """Read what a training starts from.

    Parameters
    ----------
    text : str or None
        What was given, if anything.
    """
    if text is None:
        return AUTO
    return None if text == NOTHING else text


@dataclass(frozen=True)
class PretrainArguments:
    """Data and starting point of pretraining; the help of the command explains them."""

    sources: Sequence[Path]
    start: Start
    probe_images: Path | None
    probe_labels: Path | None
    probe_ignore: int | None
    reading: Reading


def run_pretrain(
    arguments: PretrainArguments,
    run: Path,
    given: Given,
    *,
    resume: bool,
    plan: bool,
    devices: int | None,
    console: Console,
) -> None:
    """Pretrain on images.

    Parameters
    ----------
    arguments : PretrainArguments
        Data and starting point.
    run : Path
        The run folder.
    given : dict[str, Any]
        Settings that were given, not checked yet.
    resume : bool
        Continue the run in the folder, with its settings where none are given.
    plan : bool
        Only measure the time and memory that the run will take, on one device.
    devices : int or None
        How many train together; None for as many as processes were started.
    console : rich.console.Console
        Where progress is shown.
    """
    on_devices(
        None if plan else devices,
        console,
        lambda team: _pretrain(
            arguments, run, given, team, resume=resume, plan=plan, console=console
        ),
    )


def _pretrain(
    arguments: PretrainArguments,
    run: Path,
    given: Given,
    team: Team,
    *,
    resume: bool,
    plan: bool,
    console: Console,
) -> None:
    check_folder(run)
    before = _settings_before(run, given) if resume else {}
    sources = open_images(arguments.sources, arguments.reading, console)
    labelled = _open_both(
        arguments.probe_images, arguments.probe_labels, "probe", arguments.reading, console
    )
    config = build(PretrainConfig, {"in_channels": sources[0].n_channels}, before, given)
    if plan:
        _tell_plan(measure_plan(config, pretrained=arguments.start), console)
        return
    events = pretrain(
        sources,
        config,
        run,
        start=arguments.start,
        labelled=labelled or (),
        ignore_value=arguments.probe_ignore,
        resume=resume,
        team=team,
    )
    _show(events, "pretrain", console)


@dataclass(frozen=True)
class FinetuneArguments:
    """Data and starting point of fine-tuning; the help of the command explains them."""

    images: Path
    labels: Path
    validation_images: Path | None
    validation_labels: Path | None
    pretrained: Start
    classes: Sequence[str]
    reading: Reading


def run_finetune(
    arguments: FinetuneArguments,
    run: Path,
    given: Given,
    *,
    resume: bool,
    plan: bool,
    devices: int | None,
    console: Console,
) -> None:
    """Fine-tune on images with labels.

    Parameters
    ----------
    arguments : FinetuneArguments
        Data and starting point.
    run : Path
        The run folder.
    given : dict[str, Any]
        Settings that were given, not checked yet.
    resume : bool
        Continue the run in the folder, with its settings where none are given.
    plan : bool
        Only measure the time and memory that the run will take, on one device.
    devices : int or None
        How many train together; None for as many as processes were started.
    console : rich.console.Console
        Where progress is shown.
    """
    on_devices(
        None if plan else devices,
        console,
        lambda team: _finetune(
            arguments, run, given, team, resume=resume, plan=plan, console=console
        ),
    )


def _finetune(
    arguments: FinetuneArguments,
    run: Path,
    given: Given,
    team: Team,
    *,
    resume: bool,
    plan: bool,
    console: Console,
) -> None:
    check_folder(run)
    before = _settings_before(run, given) if resume else {}
    pairs = open_pairs(arguments.images, arguments.labels, arguments.reading, console)
    validation = _open_both(
        arguments.validation_images,
        arguments.validation_labels,
        "validation",
        arguments.reading,
        console,
    )
    if arguments.classes:
        given = {**given, "classes": parse_classes(arguments.classes)}
    config = build(FinetuneConfig, {"in_channels": pairs[0][0].n_channels}, before, given)
    if plan:
        classes = len(settle_classes([*pairs, *(validation or ())], config, None))
        measured = measure_plan(config, classes=classes, pretrained=arguments.pretrained)
        _tell_plan(measured, console)
        return
    events = finetune(
        pairs,
        config,
        run,
        validation=validation,
        pretrained=arguments.pretrained,
        resume=resume,
        team=team,
    )
    _show(events, "finetune", console)


def _show(events: Generator[Event, None, None], name: str, console: Console) -> None:
    with meter(console, name) as progress:
        listeners = [Reporter(console, progress).show]
        deliver(events, listeners, console, resume=this_command("--resume"))


def _tell_plan(events: Generator[Event, None, None], console: Console) -> None:
    """Print the time and memory that a run will take to standard output."""

    def tell(event: Event) -> None:
        if isinstance(event, PlanMeasured):
            typer.echo(describe_plan(event))

    with meter(console, "plan") as progress:
        deliver(events, [Reporter(console, progress).show, tell], console)


def _settings_before(run: Path, given: Given) -> Given:
    """Return the settings of the run that is continued; a length that is given replaces its own."""
    before = read_config(run).model_dump(mode="json", exclude_unset=True)
    if given.keys() & _LENGTH:
        before = {name: value for name, value in before.items() if name not in _LENGTH}
    return before


def _open_both(
    images: Path | None, labels: Path | None, name: str, reading: Reading, console: Console
) -> list[Pair] | None:
    """Open the pairs of two options, which are given both or not at all."""
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        raise typer.BadParameter(f"give both --{name}-images and --{name}-labels")
    return open_pairs(images, labels, reading, console)
