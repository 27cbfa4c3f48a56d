"""Opening a run folder for a new run, or to go on with the one in it."""

from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypeVar

from napari_affmae.config import RUN_FILE, TrainingConfig
from napari_affmae.data import ImageSource, map_in_order
from napari_affmae.data.sources.source import spread
from napari_affmae.engine.events import Notice
from napari_affmae.engine.store.run_folder import Kind, RunFolder, read_config, read_record
from napari_affmae.errors import CheckpointError, RunExistsError

C = TypeVar("C", bound=TrainingConfig)

#: What a resumed run may do otherwise than it was started: where it computes.
FREE = frozenset({"device", "precision", "memory_share", "checkpoint_minutes", "validation_steps"})
_LENGTH = ("steps", "minutes")
_MOST_FINGERPRINTS = 128
# A resumed run compares these to tell whether it sees the same data; names and paths may change.
_SEEN = ("fingerprint", "planes", "height", "width")


def settle_config(folder: RunFolder, kind: Kind, given: C | None, *, resume: bool) -> C:
    """Decide on the settings of a run.

    A resumed run keeps its stored settings. The given ones, if any, may differ
    from them in the device, precision, memory, how often to validate and save,
    and in the length, which may only grow: the schedule is then that of the
    longer run from here on.

    Parameters
    ----------
    folder : RunFolder
        The run folder; open.
    kind : {"pretrain", "finetune"}
        What the run does.
    given : TrainingConfig or None
        Settings; None takes the stored ones.
    resume : bool
        Whether to go on with the run in the folder.

    Returns
    -------
    TrainingConfig
        The settings to train with.

    Raises
    ------
    RunExistsError
        If a run would be overwritten.
    CheckpointError
        If there is no run of this kind to resume.
    ValueError
        If other settings differ, or none are given for a new run.
    """
    if not resume:
        if folder.holds_run():
            raise RunExistsError(
                f"{folder.path} already holds a run; resume it, or choose another folder"
            )
        if given is None:
            raise ValueError("a new run needs settings; config is None")
        return given
    if folder.is_new:
        raise CheckpointError(f"{folder.path} holds no run: {RUN_FILE} is missing")
    stored = read_config(folder.path)
    if read_record(folder.path)["kind"] != kind:
        raise CheckpointError(
            f"{folder.path} holds a run of another kind than {kind!r}; choose its folder"
        )
    if given is None:
        return stored  # type: ignore[return-value]
    _compare(stored, given)
    return given


def _compare(stored: TrainingConfig, given: TrainingConfig) -> None:
    before, now = stored.model_dump(), given.model_dump()
    for name in before.keys() - FREE - set(_LENGTH):
        if before[name] != now[name]:
            raise ValueError(
                f"the run was started with {name} = {before[name]!r}, resuming it with "
                f"{now[name]!r} is not possible; leave it out, or start a new run"
            )
    for name in _LENGTH:
        if (before[name] is None) != (now[name] is None):
            raise ValueError(
                f"the run's length is given in {_LENGTH[before['steps'] is None]}; "
                "keep to that when resuming it"
            )
        if before[name] is not None and now[name] < before[name]:
            raise ValueError(
                f"the run was started for {before[name]:g} {name}; resuming can make it longer, "
                f"not shorter, got {now[name]:g}"
            )


def describe(sources: Iterable[ImageSource]) -> list[dict[str, Any]]:
    """List what a run's record says of its data.

    Parameters
    ----------
    sources : iterable of ImageSource
        Images, or labels. Of many, which would take long, evenly spread ones are
        fingerprinted, and the others have None.
    """
    sources = list(sources)
    marked = spread(len(sources), _MOST_FINGERPRINTS)
    prints = map_in_order(ImageSource.fingerprint, [sources[number] for number in marked])
    by_number = dict(zip(marked, prints, strict=True))
    return [
        {
            "name": source.name,
            "path": None if source.path is None else str(source.path),
            "fingerprint": by_number.get(number),
            "planes": source.n_planes,
            "height": source.height,
            "width": source.width,
            "channels": source.n_channels,
            "pixel_size": source.pixel_size,
        }
        for number, source in enumerate(sources)
    ]


def note_changes(
    before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]
) -> Generator[Notice, None, None]:
    """Tell that a resumed run does not see the data that it saw before.

    Parameters
    ----------
    before, now : sequence of dict
        From `describe`.

    Yields
    ------
    Notice
        At most one.
    """
    seen = [[[item.get(key) for key in _SEEN] for item in data] for data in (before, now)]
    if seen[0] != seen[1]:
        yield Notice(
            f"the data are not those that the run was started with ({len(before)} images then, "
            f"{len(now)} now, or their content or order changed); it goes on with the new ones"
        )
