"""Which runs and models fit an image, and which of them is chosen until the user chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_affmae.config import WORTHWHILE_CROPS
from napari_affmae.data.sources.source import ImageSource, PixelSize
from napari_affmae.engine.inference.pixel_sizes import fit_in_size, size_words
from napari_affmae.engine.store.checkpoints import MODEL_FILE
from napari_affmae.engine.store.registry import (
    MODEL_SUFFIX,
    RunSummary,
    list_runs,
    list_weights,
)
from napari_affmae.engine.store.starting_weights import AUTO, Origin, find_origin, named_start


@dataclass(frozen=True)
class Subject:
    """The image that a run or model is wanted for.

    Attributes
    ----------
    name : str
        Its name.
    channels : int
        Number of channels.
    pixel_size : (float, float) or None
        (row, column) in nanometres, if known.
    classes : frozenset of str
        Names of the classes of its labels; empty if there are none.
    """

    name: str
    channels: int
    pixel_size: PixelSize | None
    classes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, image: ImageSource, classes: frozenset[str] = frozenset()) -> "Subject":
        """Describe an image."""
        return cls(image.name, image.n_channels, image.pixel_size, classes)


def misfit(run: RunSummary, subject: Subject) -> str | None:
    """Say why a run or model does not fit an image; None if it does, as far as is known."""
    if run.in_channels and run.in_channels != subject.channels:
        return f"it takes {_channels(run.in_channels)}, the image has {subject.channels}"
    sizes = run.pixel_size, subject.pixel_size
    if not fit_in_size(*sizes):
        learned, shown = (size_words(size) for size in sizes if size is not None)
        return f"it learned from pixels of {learned}, those of the image are {shown}"
    if run.classes and subject.classes and subject.classes != {one.name for one in run.classes}:
        return "its classes are not those of the labels of the image"
    return None


def is_short(run: RunSummary) -> bool:
    """Return whether a pretraining has seen too little to be worth starting from.

    Where the probe says that it has become better all the same, it has not.
    """
    if run.kind != "pretrain" or run.crops is None or (run.probe and run.probe.is_clear):
        return False
    return run.crops < WORTHWHILE_CROPS


def to_start_from(runs: Sequence[RunSummary], subject: Subject | None) -> RunSummary | None:
    """Choose what to start from.

    These are the weights that come with the program, until a pretraining on images of this
    kind is better: it went on from them, and labels say that its features are better than
    theirs (`ProbeGain`). Of several such runs the newest that learned from this image is
    taken, else the newest.

    Where there are no such weights for the channels of the image, of all pretrainings one
    that fits comes before all that do not, then what has seen the most crops, up to the
    number that makes it worth it, then what learned from this image, then the newest.

    Parameters
    ----------
    runs : sequence of RunSummary
        Newest first; those that come with the program in their order.
    subject : Subject or None
        The image; None if there is none yet.
    """
    usable = [
        run
        for run in runs
        if run.problem is None and (subject is None or run.in_channels == subject.channels)
    ]
    shipped = [run for run in usable if run.kind == "weights"]
    trained = [run for run in usable if run.kind == "pretrain" and run.crops]

    def learned_from_it(run: RunSummary) -> bool:
        return subject is not None and subject.name in run.sources

    def rank(run: RunSummary) -> tuple[bool, int, bool]:
        fits = subject is None or misfit(run, subject) is None
        return fits, min(run.crops or 0, WORTHWHILE_CROPS), learned_from_it(run)

    # The first of equals, which is the newest.
    if not shipped:
        return max(trained, key=rank, default=None)
    better = [run for run in trained if subject is not None and misfit(run, subject) is None]
    better = [run for run in better if _outdoes(run, shipped, trained)]
    return max(better, key=learned_from_it, default=shipped[0])


def automatic_origin(folder: Path, size: str, subject: Subject) -> Origin:
    """Find what a training starts from where nothing was chosen; see `to_start_from`.

    Where no weights come with the program for this network and image, that is nothing
    learned yet: a run that is only the best of what happens to lie there has to be asked for.

    Parameters
    ----------
    folder : Path
        Where other runs lie.
    size : str
        The preset of the network.
    subject : Subject
        The image.
    """
    shipped = find_origin(AUTO, size, subject.channels)
    if shipped.path is None:
        return shipped
    runs = [run for run in (*list_weights(), *list_runs(folder)) if run.preset == size]
    chosen = to_start_from(runs, subject)
    if chosen is None or chosen.path == shipped.path:
        return shipped
    return Origin(chosen.path, probe_words(chosen))


def probe_words(run: RunSummary) -> str:
    """Say what labels have told of a pretraining; empty where there were none."""
    if run.probe is None:
        return ""
    before = start_words(run)
    scores = f"probe {run.probe.start:.3f} before, {run.probe.end:.3f} after"
    if run.probe.is_clear:
        return f"labels say that its features are better than those of {before} ({scores})"
    return f"labels do not say that its features are better than those of {before} ({scores})"


def start_words(run: RunSummary) -> str:
    """Name what a run started from."""
    if run.pretrained is None:
        return "random weights"
    path = named_start(run.pretrained)
    return path.parent.name if path.name == MODEL_FILE else path.name.removesuffix(MODEL_SUFFIX)


def _outdoes(run: RunSummary, shipped: Sequence[RunSummary], trained: Sequence[RunSummary]) -> bool:
    """Return whether a pretraining has become better than the shipped weights it descends from."""
    if run.pretrained is None or run.probe is None or not run.probe.is_clear:
        return False
    if run.pretrained in {item.name for item in shipped}:
        return True
    others = [other for other in trained if other is not run]
    return any(
        other.path.absolute() == Path(run.pretrained) and _outdoes(other, shipped, others)
        for other in others
    )


def to_segment_with(runs: Sequence[RunSummary], subject: Subject | None) -> RunSummary | None:
    """Choose the model to segment an image with.

    It is the newest that learned from this image, else the newest that is known to have
    learned from pixels of this size. A model that may be for other images is left to the user.

    Parameters
    ----------
    runs : sequence of RunSummary
        Newest first.
    subject : Subject or None
        The image; None if there is none, or if it is a file that is not open.
    """
    if subject is None:
        return None
    fitting = [run for run in runs if misfit(run, subject) is None]
    own = (run for run in fitting if subject.name in run.sources)
    alike = (run for run in fitting if run.pixel_size is not None and subject.pixel_size)
    return next(own, None) or next(alike, None)


def _channels(count: int) -> str:
    return f"{count} channel{'s' * (count > 1)}"
