"""The images that are chosen for a pretraining: layers, and files to be opened in a worker."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from napari_affmae.data.looking import Looking
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine.events import Event, FilesLookedAt, Notice
from napari_affmae.errors import DataError

T = TypeVar("T")
# A list of thousands of messages would keep the window busy.
_MOST_SKIPPED = 20


@dataclass(frozen=True)
class Summary(Event):
    """A summary of the chosen images; `channels` is None if the images differ."""

    text: str
    planes: int
    channels: int | None


@dataclass(frozen=True)
class Selection:
    """The chosen images.

    Attributes
    ----------
    layers : tuple of ImageSource
        Sources of open layers.
    paths : tuple of Path
        Files and folders, not opened yet.
    channels : tuple of int or None
        Channels of the files to use; the layers have theirs already.
    """

    layers: tuple[ImageSource, ...] = ()
    paths: tuple[Path, ...] = ()
    channels: tuple[int, ...] | None = None

    def __bool__(self) -> bool:
        return bool(self.layers or self.paths)

    def label(self) -> str:
        """Return the name of the first image, to name a run by what it learns from."""
        names = [layer.name for layer in self.layers] + [path.stem for path in self.paths]
        return names[0] if names else ""

    def open(self) -> Generator[Event, None, list[ImageSource]]:
        """Open the files, and report those that are left out; to be called in a worker.

        Raises
        ------
        DataError
            If there is no image.
        """
        from napari_affmae.data import look_for_sources, told

        found = yield from _told(look_for_sources(self.paths, channels=self.channels))
        lines = list(told(found.skipped))
        for line in lines[:_MOST_SKIPPED]:
            yield Notice(f"left out: {line}", "warning")
        if len(lines) > _MOST_SKIPPED:
            yield Notice(f"left out: {len(lines) - _MOST_SKIPPED} more files and folders")
        if found.others.counts:
            yield Notice(f"files of other kinds: {found.others}", "info")
        sources = [*self.layers, *found.sources]
        if not sources:
            raise DataError("there is no image: choose an image layer, a file or a folder")
        return sources

    def summary(self, crop: int) -> Generator[Event, None, None]:
        """Describe and check the images; to be run by a worker.

        Yields
        ------
        Event
            Notices, the last event is `Summary`.
        """
        from napari_affmae.data import check_sources

        sources = yield from self.open()
        yield summarize(sources)
        for finding in check_sources(sources, crop=crop):
            yield Notice(finding.message, finding.level, finding.source)


def _told(looking: Looking[T]) -> Generator[Event, None, T]:
    """Search to the end, and tell the counts by events; whoever closes it ends the search."""
    with closing(looking):
        while True:
            try:
                count = next(looking)
            except StopIteration as stop:
                found: T = stop.value
                return found
            yield FilesLookedAt(count)


def summarize(sources: Sequence[ImageSource]) -> Summary:
    """Summarise images in one line: planes, pixels, dtypes, pixel sizes."""
    planes = sum(source.n_planes for source in sources)
    pixels = sum(source.n_planes * source.height * source.width for source in sources)
    sizes = {(source.height, source.width) for source in sources}
    dtypes = sorted({str(source.dtype) for source in sources})
    channels = {source.n_channels for source in sources}
    heights, widths = zip(*sizes, strict=True)
    shape = f"{_range(heights)} x {_range(widths)} px"
    nanometres = sorted({size for size in (source.pixel_size for source in sources) if size})
    size = "pixel size unknown"
    if nanometres:
        rows = [row for row, _ in nanometres]
        size = f"{_range(rows)} nm a pixel"
    text = (
        f"{len(sources)} image{'s' * (len(sources) > 1)}, {planes} plane{'s' * (planes > 1)} of "
        f"{shape} ({pixels / 1e6:.3g} Mpx), {', '.join(dtypes)}"
        f"{'' if channels == {1} else f', {_range(channels)} channels'}, {size}"
    )
    return Summary(text, planes, channels.pop() if len(channels) == 1 else None)


def _range(values: "Sequence[float] | set[int]") -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
