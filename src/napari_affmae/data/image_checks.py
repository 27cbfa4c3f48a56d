"""Checks the pixels of one image for problems that would spoil training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.appearance import Membranes, bar_height, membranes
from napari_affmae.data.flatness import looks_like_labels
from napari_affmae.data.normalization.empty_places import in_empty_tiles
from napari_affmae.data.sources.source import ImageSource, spread
from napari_affmae.errors import AffmaeError, SystemLimitError

Level = Literal["info", "warning", "error"]

NAMED = 3

_Read = Callable[[int, slice, slice], NDArray[Any]]

_MOST_PLANES = 16
_WINDOW = 512
_WINDOWS_AXIS = 4
_FULL_SAMPLE = _MOST_PLANES * _WINDOWS_AXIS**2 * _WINDOW**2
_SMALL_PLANE = 2**20  # values
_PLACES_ELSEWHERE = 256
_MUCH_EMPTY = 0.2
_VALUED_PLANES = 4
_BAR_PLANES = 4
_BAR_SIDE = 2048


@dataclass(frozen=True)
class Finding:
    """A problem or fact that a check found.

    Attributes
    ----------
    level : "info", "warning" or "error"
        With an error, the source cannot be used as it is.
    message : str
        What is wrong, where, and what to do; does not name `sources`.
    sources : tuple of ImageSource
        The sources concerned; empty if the message compares and names sources itself.
    """

    level: Level
    message: str
    sources: tuple[ImageSource, ...] = ()

    @property
    def source(self) -> str | None:
        """Names of the sources, to be shown before the message."""
        return shortened([source.name for source in self.sources]) or None


@dataclass(frozen=True)
class Inspection:
    """Findings on one image; `membranes` is None if they were not judged."""

    findings: list[Finding]
    membranes: Membranes | None = None

    @property
    def is_usable(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)


def inspect(source: ImageSource, most_pixels: int, *, contrast: bool) -> Inspection:
    """Look at an image.

    Parameters
    ----------
    source : ImageSource
        The image or stack.
    most_pixels : int
        About how many pixels are read, at least one window's.
    contrast : bool
        Whether to judge the membranes too, which takes longest.

    Returns
    -------
    Inspection
        A file that cannot be read is among its findings as an error.

    Raises
    ------
    SystemLimitError
        If memory or open files run out, which says nothing about the image.
    """
    try:
        inspection = Inspection(list(_check_pixels(source, most_pixels)))
        if contrast and inspection.is_usable:
            inspection = Inspection(inspection.findings, membranes(source))
        # A run records it, and now the file is open and its pixels are decoded.
        source.fingerprint()
    except SystemLimitError:
        raise
    except AffmaeError as error:
        return Inspection([Finding("error", str(error), (source,))])
    return inspection


def shortened(names: Sequence[str]) -> str:
    """List some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


@dataclass(frozen=True)
class _Seen:
    """Planes that were read, in how many places, and which of them hold what."""

    planes: list[int]
    places: int
    constant: list[int]
    no_value: list[int]
    not_finite: list[int]
    is_grey: bool
    empty: float = 0.0  # share of places of one value, on planes that hold other values too
    is_empty: bool = False  # its file stores no pixel

    @property
    def nothing(self) -> bool:
        """Whether nothing can be learned from what was read."""
        return self.planes in (self.constant, self.no_value)


def _check_pixels(source: ImageSource, most_pixels: int) -> Iterator[Finding]:
    read = _reader(source)
    seen = _look(source, read, most_pixels)
    if seen.constant or seen.no_value:
        # A few windows may lie in an empty border, and a few planes before the tissue begins.
        seen = _look(source, read, max(most_pixels, _FULL_SAMPLE * source.n_channels))
    if seen.nothing:
        seen = _look_elsewhere(source, read, seen)
    if seen.nothing and not _is_complete(source, seen):
        seen = _look_where_stored(source, read, seen)
    yield from _judge(source, seen)
    yield from _check_values(source, read, seen)
    if len(seen.no_value) < len(seen.planes):
        yield from _check_bar(source, read, seen.planes, most_pixels)


def _look(source: ImageSource, read: _Read, most_pixels: int) -> _Seen:
    planes, windows = _sample(source, most_pixels)
    seen = _Seen(planes, len(planes) * len(windows), [], [], [], source.n_channels > 1)
    empty = []
    for plane in planes:
        parts = [read(plane, *window) for window in windows]
        pixels = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        finite = np.isfinite(pixels)
        if not finite.any():
            seen.no_value.append(plane)
            continue
        if not finite.all():
            seen.not_finite.append(plane)
        if _is_constant(pixels[finite]):
            seen.constant.append(plane)
        else:
            empty += [_empty_share(part) for part in parts]
        if seen.is_grey and (pixels[:3] != pixels[:1]).any():
            seen = replace(seen, is_grey=False)
    return replace(seen, empty=float(np.mean(empty))) if empty else seen


def _empty_share(part: NDArray[Any]) -> float:
    """Share of a part in places where each of its channels, (channels, rows, columns), is empty."""
    return float(np.all([in_empty_tiles(channel) for channel in part], axis=0).mean())


def _look_elsewhere(source: ImageSource, read: _Read, seen: _Seen) -> _Seen:
    """Look for one place that holds something; what is sparse may be where nobody looked."""
    if _is_complete(source, seen):
        return seen
    rng = np.random.default_rng(0)  # the same places every time
    planes = spread(source.n_planes, _PLACES_ELSEWHERE)
    most = _PLACES_ELSEWHERE // len(planes)
    for number in range(most):
        for plane in planes:
            # The middle first, where most images have what they show.
            share = (0.5, 0.5) if number == 0 else rng.random(2)
            rows, columns = (
                slice(start, start + _WINDOW)
                for size, part in zip((source.height, source.width), share, strict=True)
                for start in [int(part * max(0, size - _WINDOW))]
            )
            seen = _look_at(seen, plane, read(plane, rows, columns))
            if not seen.nothing:
                return seen
    return seen


def _look_where_stored(source: ImageSource, read: _Read, seen: _Seen) -> _Seen:
    """Look at what a file holds that stores only what is not empty."""
    parts = source.stored_parts(_PLACES_ELSEWHERE)
    for plane, rows, columns in parts or ():
        for top in range(rows.start, rows.stop, _WINDOW):
            band = slice(top, min(top + _WINDOW, rows.stop))
            seen = _look_at(seen, plane, read(plane, band, columns))
            if not seen.nothing:
                return seen
    return replace(seen, is_empty=parts == [])


def _look_at(seen: _Seen, plane: int, pixels: NDArray[Any]) -> _Seen:
    """Count one more place; if it holds something, its plane is no longer empty."""
    seen = replace(seen, places=seen.places + 1)
    finite = pixels[np.isfinite(pixels)]
    if not finite.size or _is_constant(finite):
        return seen
    return replace(
        seen,
        planes=[*seen.planes, plane] if plane not in seen.planes else seen.planes,
        constant=[one for one in seen.constant if one != plane],
        no_value=[one for one in seen.no_value if one != plane],
        not_finite=[plane] if finite.size < pixels.size else [],
    )


def _is_complete(source: ImageSource, seen: _Seen) -> bool:
    """Whether every pixel was read."""
    largest = max(source.height, source.width)
    return len(seen.planes) == source.n_planes and largest <= _WINDOWS_AXIS * _WINDOW


def _judge(source: ImageSource, seen: _Seen) -> Iterator[Finding]:
    about = (source,)
    if seen.nothing:
        what = "no pixel has a finite value" if seen.no_value else "all of one single value"
        is_known = _is_complete(source, seen) or seen.is_empty
        where = "" if is_known else f" in the {seen.places} places looked at"
        if is_known or seen.no_value:
            yield Finding("error", f"{what}{where}: nothing can be learned from it", about)
        else:
            advice = "leave it out, unless it holds something elsewhere"
            yield Finding("warning", f"{what}{where}: {advice}", about)
        if seen.no_value:
            return
    elif seen.constant:
        where = _planes(seen.constant, source)
        yield Finding("warning", f"{where} with only one value; leave such out", about)
    if seen.empty > _MUCH_EMPTY:
        tenths = 10 * round(10 * seen.empty)  # so that much the same of many images is said once
        yield Finding(
            "warning",
            f"about {tenths} % of it is of one value, such as a border; that does not count "
            "for its contrast, but crops of it teach nothing: crop it off, or leave out planes "
            "that are mostly empty",
            about,
        )
    if seen.not_finite or seen.no_value:
        where = _planes(seen.not_finite + seen.no_value, source)
        yield Finding(
            "warning", f"NaN or infinite values in {where}; they are replaced by the mean", about
        )
    if seen.is_grey:
        yield Finding(
            "warning", "colour channels are equal; choose channel 0 to read it as grey", about
        )


def _check_values(source: ImageSource, read: _Read, seen: _Seen) -> Iterator[Finding]:
    """Warn of what looks like labels that were taken for an image."""
    telling = [plane for plane in seen.planes if plane not in seen.constant + seen.no_value]
    if source.n_channels > 1 or not telling:
        return
    rows, columns = (
        slice(max(0, (size - _WINDOW) // 2), (size + _WINDOW) // 2)
        for size in (source.height, source.width)
    )
    blocks = [read(plane, rows, columns)[0] for plane in telling[:_VALUED_PLANES]]
    if all(map(looks_like_labels, blocks)):
        yield Finding(
            "warning",
            "holds areas of whole numbers, like labels or a mask; leave it out, unless it is an "
            "image",
            (source,),
        )


def _sample(source: ImageSource, most_pixels: int) -> tuple[list[int], list[tuple[slice, slice]]]:
    """Choose planes, and on each of them all pixels or some windows of a grid.

    The windows come first: there are several planes only if all windows of one are read.
    """
    axes = []
    for size in (source.height, source.width):
        count = min(_WINDOWS_AXIS, -(-size // _WINDOW))
        starts = np.linspace(0, max(0, size - _WINDOW), count).astype(int).tolist()
        axes.append([slice(start, min(size, start + _WINDOW)) for start in starts])
    grid = [(rows, columns) for rows in axes[0] for columns in axes[1]]
    most_windows = max(1, most_pixels // (source.n_channels * _WINDOW**2))
    windows = [grid[number] for number in _some(len(grid), most_windows)]
    return _some(source.n_planes, min(_MOST_PLANES, most_windows // len(windows))), windows


def _some(total: int, count: int) -> list[int]:
    """Spread numbers evenly; a single one is the middle."""
    return [total // 2] if count == 1 else spread(total, count)


def _reader(source: ImageSource) -> _Read:
    """Return how parts of planes are read: small planes are decoded once, as a whole."""
    if source.n_channels * source.height * source.width > _SMALL_PLANE:
        return source.read
    whole = cache(source.read)
    return lambda plane, rows, columns: whole(plane)[:, rows, columns]


def _is_constant(pixels: NDArray[Any]) -> bool:
    return bool(pixels.min() == pixels.max())  # their difference may overflow


def _planes(planes: Sequence[int], source: ImageSource) -> str:
    """Words for planes, or for the image if it has only one."""
    if source.n_planes == 1:
        return "the image"
    named = shortened([str(plane) for plane in sorted(planes)])
    return f"plane{'s' if len(planes) > 1 else ''} {named}"


def _check_bar(
    source: ImageSource,
    read: _Read,
    looked_at: Sequence[int],
    most_pixels: int,
) -> Iterator[Finding]:
    height, width = source.height, source.width
    rows = slice(max(height // 2, height - _BAR_SIDE), height)
    columns = slice(0, min(width, _BAR_SIDE, max(_WINDOW, most_pixels // (rows.stop - rows.start))))
    bars = []
    for number in spread(len(looked_at), _BAR_PLANES):
        bottom = read(looked_at[number], rows, columns)[0]
        if np.isfinite(bottom).all() and not _is_constant(bottom):
            bars.append((bar_height(bottom), looked_at[number]))
    bar, plane = max(bars, default=(0, 0))
    if bar:
        yield Finding(
            "warning",
            f"the bottom {bar} rows of {_planes([plane], source)} look like an information bar "
            "or an empty band; crop them off, or the network learns them",
            (source,),
        )
