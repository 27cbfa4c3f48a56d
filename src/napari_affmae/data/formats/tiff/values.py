"""What the numbers in a TIFF mean: grey from black or from white, colours, or transparency."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.sources.layout import CHANNEL_AXES
from napari_affmae.data.sources.source import ArrayLike

# Colours that would be read as channels although they are no amounts of light.
_NO_LIGHT: dict[int, str] = {
    PHOTOMETRIC.SEPARATED: "inks (CMYK)",
    PHOTOMETRIC.CIELAB: "CIE L*a*b*",
    PHOTOMETRIC.ICCLAB: "CIE L*a*b*",
    PHOTOMETRIC.ITULAB: "CIE L*a*b*",
    PHOTOMETRIC.LOGL: "logarithms of light",
    PHOTOMETRIC.LOGLUV: "logarithms of light",
}
# Decoders of JPEG and its like return RGB, others what is stored.
_LEAVES_YCBCR = {
    COMPRESSION.NONE,
    COMPRESSION.LZW,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.DEFLATE,
    COMPRESSION.PACKBITS,
    COMPRESSION.ZSTD,
}
_ALPHA = {EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA}
_SAMPLES = "S"


@dataclass(frozen=True)
class ChangedArray:
    """An array whose elements are changed when they are read.

    Attributes
    ----------
    array : ArrayLike
        What is stored.
    change : callable
        Takes a part of it and returns what that part means, in the same shape.
    dtype : numpy.dtype
        Of what `change` returns.
    """

    array: ArrayLike
    change: Callable[[NDArray[Any]], NDArray[Any]]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return self.array.shape

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read a part, by integers and slices."""
        return self.change(np.asarray(self.array[index]))


class ColouredArray:
    """Colours in place of their numbers in a table; they are a last axis.

    Parameters
    ----------
    array : ArrayLike
        The numbers.
    table : ndarray, (numbers, 3), uint8
        The colours.
    """

    def __init__(self, array: ArrayLike, table: NDArray[np.uint8]) -> None:
        self._array = array
        self._table = table
        self.shape = (*array.shape, table.shape[1])
        self.dtype = table.dtype

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read by one integer or slice for each axis."""
        *places, samples = index
        colours: NDArray[Any] = self._table[np.asarray(self._array[tuple(places)])]
        return colours[..., samples]


def meaning_of(
    tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, *, labels: bool
) -> Callable[[OpenFile], OpenFile]:
    """Return what turns the numbers of a series, once it is open, into what they stand for.

    Parameters
    ----------
    tiff, series
        The file, still open, and its series.
    labels : bool
        Whether the numbers are classes and stay as they are.

    Raises
    ------
    ValueError
        If its colours are no amounts of light.
    """
    page = series.keyframe
    meaning = page.photometric
    colours = _NO_LIGHT.get(meaning)
    if meaning == PHOTOMETRIC.YCBCR and page.compression in _LEAVES_YCBCR:
        colours = "brightness and two differences (YCbCr)"
    if colours is not None:
        raise ValueError(f"its colours are {colours}, which are not read; make it grey or RGB")
    change: Callable[[OpenFile], OpenFile] = replace
    if meaning == PHOTOMETRIC.MINISWHITE:
        change = partial(_from_white, bits=int(page.bitspersample), labels=labels)
    elif meaning == PHOTOMETRIC.PALETTE and page.colormap is not None and not labels:
        # ImageJ and OME keep tables of colours to show values by.
        only_shown = tiff.pages.first.is_imagej or tiff.is_ome
        change = partial(_coloured, table=page.colormap, only_shown=only_shown)
    alpha = _alpha(series)
    return lambda file: replace(change(file), alpha=alpha)


def _alpha(series: tifffile.TiffPageSeries) -> tuple[int, ...]:
    """Return which of the channels, counted over all their axes, say how opaque a pixel is."""
    extra = series.keyframe.extrasamples
    axes = [axis for axis in series.axes if axis in CHANNEL_AXES]
    sizes = [
        size for size, axis in zip(series.shape, series.axes, strict=True) if axis in CHANNEL_AXES
    ]
    if axes.count(_SAMPLES) != 1 or not _ALPHA & set(extra):
        return ()
    place = axes.index(_SAMPLES)
    first = sizes[place] - len(extra)
    samples = [first + number for number, kind in enumerate(extra) if kind in _ALPHA]
    numbers = np.arange(np.prod(sizes)).reshape(sizes).take(samples, axis=place)
    return tuple(sorted(numbers.ravel().tolist()))


def _from_white(file: OpenFile, *, bits: int, labels: bool) -> OpenFile:
    """Turn grey that is counted from white, unless its numbers are classes or have no end."""
    kind = file.dtype.kind
    if kind == "b":  # Many libraries write masks this way, and ask for 1 and 0 again.
        return file if labels else _noted(file, "0 is white in it; it is read as it is stored")
    if labels or kind != "u":
        more = "" if labels else ", and the setting Invert turns them"
        return _noted(file, f"0 is white in it; its numbers are read as they are stored{more}")
    white = np.array(2**bits - 1, dtype=file.dtype.newbyteorder("="))
    dtype = white.dtype
    array = ChangedArray(file.array, lambda part: white - part.astype(dtype, copy=False), dtype)
    return _noted(replace(file, array=array), "0 is white in it; its values are inverted")


def _coloured(file: OpenFile, *, table: NDArray[np.uint16], only_shown: bool) -> OpenFile:
    """Look up numbers in their table of colours, (3, numbers), unless it only shows them."""
    # Some writers fill in 8 of the 16 bits.
    colours = (table >> 8 if table.max() > 255 else table).astype(np.uint8).T
    greys = colours[:, 0]
    is_grey = bool((colours == colours[:, :1]).all())
    if is_grey and np.array_equal(greys, np.arange(len(greys))):
        return file
    if only_shown:
        return _noted(file, "its table of colours is left out; the values behind it are read")
    if is_grey:
        array = ChangedArray(file.array, lambda part: greys[part], greys.dtype)
        return _noted(replace(file, array=array), "its values are looked up in its table of greys")
    coloured = ColouredArray(file.array, colours)
    file = replace(file, array=coloured, axes=f"{file.axes}{_SAMPLES}")
    return _noted(file, "its values are looked up in its table of colours")


def _noted(file: OpenFile, note: str) -> OpenFile:
    return replace(file, notes=[*file.notes, note])
