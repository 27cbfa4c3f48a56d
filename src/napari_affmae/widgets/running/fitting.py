"""Which runs and models fit an image, and which of them is chosen until the user chooses."""

from collections.abc import Sequence
from dataclasses import dataclass

from napari_affmae.config import WORTHWHILE_CROPS
from napari_affmae.data.sources.source import ImageSource, PixelSize
from napari_affmae.engine.inference.pixel_sizes import fit_in_size, size_words
from napari_affmae.engine.store.registry import RunSummary


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
    """Return whether a pretraining has seen too little to be worth starting from."""
    return run.kind == "pretrain" and run.crops is not None and run.crops < WORTHWHILE_CROPS


def to_start_from(runs: Sequence[RunSummary], subject: Subject | None) -> RunSummary | None:
    """Choose what to start from.

    These are the weights that come with the program, until a pretraining on this image is
    better: it saw enough to be worth it, and went on from them or saw no less than they did.
    Of several pretrainings, or without such weights for the channels of the image, one that
    fits comes before all that do not, then what has seen the most crops, up to the number
    that makes it worth it, then what learned from this image, then the newest.

    Parameters
    ----------
    runs : sequence of RunSummary
        Newest first; those that come with the program in their order.
    subject : Subject or None
        The image; None if there is none yet.
    """

    def rank(run: RunSummary) -> tuple[bool, int, bool]:
        fits = subject is None or misfit(run, subject) is None
        seen = min(run.crops or 0, WORTHWHILE_CROPS)
        return fits, seen, subject is not None and subject.name in run.sources

    usable = [
        run
        for run in runs
        if run.problem is None and (subject is None or run.in_channels == subject.channels)
    ]
    shipped = [run for run in usable if run.kind == "weights"]
    trained = [run for run in usable if run.kind == "pretrain" and run.crops]
    if shipped:
        trained = [run for run in trained if _outdoes(run, shipped, subject)]
    # The first of equals, which is the newest.
    return max(trained, key=rank, default=next(iter(shipped), None))


def _outdoes(run: RunSummary, shipped: Sequence[RunSummary], subject: Subject | None) -> bool:
    """Return whether a pretraining on an image is better for it than shipped weights."""
    if subject is None or subject.name not in run.sources or misfit(run, subject) is not None:
        return False
    goes_on = run.pretrained in {item.name for item in shipped}
    needed = WORTHWHILE_CROPS if goes_on else max(item.crops or 0 for item in shipped)
    return (run.crops or 0) >= max(needed, WORTHWHILE_CROPS)


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
