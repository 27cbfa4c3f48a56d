"""Command lines that segment, and find objects, as the dock would."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_affmae.config import SegmentConfig
from napari_affmae.engine.events import Event
from napari_affmae.engine.store.run_names import new_run_path
from napari_affmae.widgets.parts.command_dialog import command_line, option_words
from napari_affmae.widgets.parts.preferences import load_preferences
from napari_affmae.widgets.segment.job import ObjectsWanted


@dataclass(frozen=True)
class CommandsReady(Event):
    """The lines, each of which is a command."""

    lines: Sequence[str]


def make_commands(
    words: Sequence[str],
    model: Path | None,
    config: SegmentConfig,
    objects: ObjectsWanted | None,
    suffix: str,
) -> Generator[Event, None, None]:
    """Make the lines; in a worker's thread, since they name a folder that is not there yet.

    Parameters
    ----------
    words : sequence of str
        The images, and options of reading them.
    model : Path or None
        The model, if one is chosen.
    config : SegmentConfig
        Settings.
    objects : ObjectsWanted or None
        The objects to find, if any.
    suffix : str
        Ending of the result, which says how it is kept; may be empty.

    Yields
    ------
    CommandsReady
        The one event.
    """
    folder = load_preferences().runs / "segmentations"
    out = new_run_path(folder, "segmentation", suffix=suffix)
    options = {"model": "MODEL" if model is None else model, "out": out}
    lines = [command_line("segment", [*words, *option_words(config)], options)]
    if objects is not None:
        values = [word for value in objects.values for word in ("--value", str(value))]
        found = out.with_name(f"{out.stem}-objects")
        words = [str(out), *values, *option_words(objects.config)]
        lines.append(command_line("objects", words, {"out": found}))
    yield CommandsReady(lines)
