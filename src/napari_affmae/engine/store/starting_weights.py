"""What a training starts from: weights that come with the program, a run, a file, or nothing.

The weights are ordinary model files in the folder ``weights`` of the package, in half
precision. Which there are is read from that folder, and which network they are for from
the files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_affmae.engine.store.metadata import read_metadata, training_facts
from napari_affmae.errors import CheckpointError

#: Folder of the weights that come with the program, and of what is told of them.
WEIGHTS = Path(__file__).parents[2] / "weights"
#: Starts from the weights that fit the size of the network and the images, if there are any; a run
#: also from one beside it that has become better than these (`fitting.automatic_origin`).
AUTO = "auto"
#: What the command line calls random weights.
NOTHING = "none"

Start = str | Path | None
"""What a training starts from.

The name of weights that come with the program (see `starting_weights`); `AUTO`; the path of
a run folder or model file; or None, which is nothing learned yet: random weights.
A path that is also a name is taken for the name, unless it is a `Path`.
"""


@dataclass(frozen=True)
class Origin:
    """What a training starts from, found and named.

    Attributes
    ----------
    path : Path or None
        Run folder or model file; None for random weights.
    reason : str
        Why `AUTO` has taken a run, or has found nothing to start from.
    """

    path: Path | None
    reason: str = ""

    @property
    def name(self) -> str | None:
        """What records call it: the name of weights that come along, else the whole path."""
        return None if self.path is None else start_name(self.path)

    @property
    def words(self) -> str:
        """What the user is told at the start of a run."""
        because = f": {self.reason}" if self.reason else ""
        if self.path is None:
            return f"it starts from nothing learned (random weights){because}"
        if is_starting_weights(self.path):
            return (
                f"it starts from {self.name}, weights that come with this program and have "
                "learned from electron microscopy in general"
            )
        return f"it starts from {self.path}{because}"


def starting_weights() -> dict[str, Path]:
    """Return the files of the weights that come with the program, by their names."""
    return {file.stem: file for file in sorted(WEIGHTS.glob("*.safetensors"))}


def is_starting_weights(path: Path) -> bool:
    """Return whether a path is one of the weights that come with the program."""
    return path in starting_weights().values()


def start_name(path: Path) -> str:
    """Return how records name a run or model: weights that come along have the same name anywhere.

    Parameters
    ----------
    path : Path
        Run folder or model file.
    """
    return path.stem if is_starting_weights(path) else str(path.absolute())


def named_start(name: str) -> Path:
    """Return what `start_name` has named, which may be gone."""
    return starting_weights().get(name, Path(name))


def find_origin(start: Start, size: str, channels: int) -> Origin:
    """Find what a training starts from.

    Parameters
    ----------
    start : Start
        What was asked for.
    size : str
        The preset of the network, which decides what `AUTO` takes.
    channels : int
        Channels of the images, likewise.

    Raises
    ------
    CheckpointError
        If there is no such run, file or name.
    """
    if start is None:
        return Origin(None)
    if start == AUTO:
        return _fitting(size, channels)
    known = starting_weights()
    if isinstance(start, str) and start in known:
        return Origin(known[start])
    path = Path(start)
    if not path.exists():
        raise CheckpointError(
            f"there is nothing to start from at {path}: give the folder of a run, a model file, "
            f"or the name of weights that come with this program ({_listed(known) or 'none do'})"
        )
    return Origin(path)


def origin_of(stored: Mapping[str, Any], key: str) -> Origin:
    """Return what a recorded run started from.

    Parameters
    ----------
    stored : Mapping[str, Any]
        Record of the run.
    key : {"start", "pretrained"}
        Where it says so; runs of earlier versions may not.
    """
    name = stored.get(key)
    return Origin(None if name is None else named_start(name))


def _fitting(size: str, channels: int) -> Origin:
    """Take the weights of a network of this size, if they take these channels."""
    known = starting_weights()
    if not known:
        return Origin(None, "no weights come with this installation")
    reason = f"no weights of the size {size} come with this program, only {_listed(known)}"
    for name, path in known.items():
        metadata = read_metadata(path)
        if training_facts(metadata, path).preset != size:
            continue
        taken = metadata.model.in_channels
        if taken == channels:
            return Origin(path)
        reason = f"{name} takes {_channels(taken)}, and the images have {channels}"
    return Origin(None, reason)


def _listed(known: Iterable[str]) -> str:
    return ", ".join(known)


def _channels(count: int) -> str:
    return f"{count} channel{'s' * (count > 1)}"
