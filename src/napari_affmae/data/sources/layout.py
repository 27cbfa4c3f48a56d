"""Finds which axes of an array are rows, columns, channels and planes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

CHANNEL_AXES = "CS"

# Detectors and colours are seldom more: three, or four samples of a pixel.
_MOST_CHANNELS = {"C": 3, "S": 4}


def default_axes(shape: Sequence[int], dtype: DTypeLike) -> str:
    """Return the axes of an array that has no metadata about them.

    The last two axes are rows and columns, all before them are planes. The one
    exception: behind at least two others, a last axis of length 1, or of 3 or 4
    samples of uint8, is colour (``S``).

    Raises
    ------
    ValueError
        With fewer than two axes.
    """
    if len(shape) < 2:
        raise ValueError(f"an image needs at least two axes, got shape {tuple(shape)}")
    samples = (1, 3, 4) if np.dtype(dtype) == np.uint8 else (1,)
    is_colour = len(shape) > 2 and shape[-1] in samples
    tail = "YXS" if is_colour else "YX"
    return "I" * (len(shape) - len(tail)) + tail


def named_axes(names: Sequence[str | None], shape: Sequence[int]) -> str | None:
    """Return the axes by their names in a file; None if rows or columns are not named.

    A name of one letter is an axis, ``channel`` is C, and every other name counts planes.
    """
    words = [(name or "").strip().upper() for name in names]
    letters = ["C" if word == "CHANNEL" else word if len(word) == 1 else "I" for word in words]
    fits = len(letters) == len(shape) and letters.count("Y") == letters.count("X") == 1
    return "".join(letters) if fits else None


def parse_axes(axes: str, shape: Sequence[int], name: str) -> str:
    """Check the user's axes: one letter for each axis of the array called `name`.

    Raises
    ------
    ValueError
        If the letters do not fit the array, repeat, or lack Y or X.
    """
    letters = axes.strip().upper()
    if not letters.isalpha() or len(letters) != len(shape):
        raise ValueError(
            f"axes {axes!r} do not fit {name} of shape {tuple(shape)}; "
            'name each axis by one letter, for instance "ZYX", "TCYX" or "YXC"'
        )
    if len(set(letters)) != len(letters):
        raise ValueError(f"axes {axes!r} names an axis twice")
    if not {"Y", "X"} <= set(letters):
        raise ValueError(f"axes {axes!r} must contain Y (rows) and X (columns)")
    return letters


def plane_number(position: Sequence[int], plane_shape: Sequence[int]) -> int:
    """Count the plane at a position on the axes that count planes, the last one fastest."""
    return int(np.ravel_multi_index(tuple(position), tuple(plane_shape))) if position else 0


def parse_channels(text: str) -> tuple[int, ...] | None:
    """Parse channel numbers with commas between them; None for all channels.

    Raises
    ------
    ValueError
        If they are no list of numbers.
    """
    text = text.strip()
    if text in {"", "all"}:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"channels must be numbers from 0 on with commas between them, got {text!r}"
        ) from None


@dataclass(frozen=True, slots=True)
class Layout:
    """An nD array seen as planes of (channel, row, column).

    Axes ``Y`` and ``X`` are rows and columns, ``C`` and ``S`` are channels
    (flattened in their order, if both are there), all others count planes, the
    last one fastest.
    """

    shape: tuple[int, ...]
    axes: str

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.axes):
            raise ValueError(f"axes {self.axes!r} do not fit an array of shape {self.shape}")
        if self.axes.count("Y") != 1 or self.axes.count("X") != 1:
            raise ValueError(f"axes {self.axes!r} must contain one Y and one X")
        if 0 in self.shape:
            raise ValueError(f"the array is empty: shape {self.shape}")

    @property
    def height(self) -> int:
        """Rows of a plane."""
        return self.shape[self.axes.index("Y")]

    @property
    def width(self) -> int:
        """Columns of a plane."""
        return self.shape[self.axes.index("X")]

    @property
    def n_channels(self) -> int:
        """Channels of a plane."""
        return math.prod(self._sizes(channels=True))

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Sizes of the axes that count planes; () for a single image."""
        return self._sizes(channels=False)

    @property
    def plane_axes(self) -> str:
        """Letters of the axes that count planes."""
        return "".join(axis for axis in self.axes if axis not in "YX" + CHANNEL_AXES)

    @property
    def n_planes(self) -> int:
        """Number of planes."""
        return math.prod(self.plane_shape)

    def _sizes(self, channels: bool) -> tuple[int, ...]:
        return tuple(
            size
            for size, axis in zip(self.shape, self.axes, strict=True)
            if axis not in "YX" and (axis in CHANNEL_AXES) == channels
        )

    def index(
        self, plane: int, rows: slice, columns: slice, channels: Sequence[int]
    ) -> tuple[Any, ...]:
        """Make the basic index (integers and slices) that covers what is asked.

        With one channel axis, only the range from the lowest to the highest
        channel is read; `arrange` picks those wanted.
        """
        position = iter(np.unravel_index(plane, self.plane_shape) if self.plane_shape else ())
        span = slice(None)
        if len(self._sizes(channels=True)) == 1:
            span = slice(min(channels), max(channels) + 1)
        named = {"Y": rows, "X": columns, "C": span, "S": span}
        return tuple(named[axis] if axis in named else int(next(position)) for axis in self.axes)

    def parts(self, chunk: Sequence[slice]) -> Iterator[tuple[int, slice, slice]]:
        """Yield the parts of planes, with rows and columns, that a part of the array covers."""
        named = dict(zip(self.axes, chunk, strict=True))
        counting = [
            range(part.start, part.stop)
            for axis, part in zip(self.axes, chunk, strict=True)
            if axis not in "YX" + CHANNEL_AXES
        ]
        for position in product(*counting):
            yield plane_number(position, self.plane_shape), named["Y"], named["X"]

    def arrange(self, block: NDArray[Any], channels: Sequence[int]) -> NDArray[Any]:
        """Bring what `index` has read into the order (channel, row, column)."""
        kept = [axis for axis in self.axes if axis in "YX" + CHANNEL_AXES]
        order = [i for i, axis in enumerate(kept) if axis in CHANNEL_AXES]
        n_channel_axes = len(order)
        order += [kept.index("Y"), kept.index("X")]
        planes = block.transpose(order)
        planes = planes.reshape(math.prod(planes.shape[:-2]), *planes.shape[-2:])
        first = min(channels) if n_channel_axes == 1 else 0
        wanted = [channel - first for channel in channels]
        if wanted == list(range(len(planes))):
            return planes
        return planes[wanted]


def axes_of_planes(layout: Layout) -> str | None:
    """Return the axes if channels of a single plane are planes that were stored as channels.

    Returns
    -------
    str or None
        Axes to open it with; None if its channels look like channels.
    """
    if layout.n_planes > 1:
        return None
    sizes = dict(zip(layout.axes, layout.shape, strict=True))
    suspects = [axis for axis, most in _MOST_CHANNELS.items() if sizes.get(axis, 1) > most]
    if len(suspects) != 1:
        return None
    (suspect,) = suspects
    # A Z that is there already is of length 1, and changes places with the channels.
    return layout.axes.translate(str.maketrans(f"{suspect}Z", f"Z{suspect}"))
