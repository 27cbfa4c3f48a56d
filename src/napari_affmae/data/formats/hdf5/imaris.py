"""Imaris files: HDF5 with a dataset a time, channel and resolution, padded to whole chunks."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from napari_affmae.data.formats.arrays.views import Cropped, Stacked
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.sources.units import pixel_size, to_plausible_nanometres

_FULL = re.compile(r"DataSet/ResolutionLevel 0/TimePoint (\d+)/Channel (\d+)/Data")

#: The group that says how large an image is.
IMAGE_DESCRIBED = "DataSetInfo/Image"

_Place = tuple[int, int]  # time and channel


def is_imaris(file: h5py.File) -> bool:
    """Whether an HDF5 file is one of Imaris."""
    return "ImarisDataSet" in file.attrs or "ImarisVersion" in file.attrs


def imaris_channels(datasets: Mapping[str, h5py.Dataset]) -> dict[_Place, h5py.Dataset]:
    """Return the datasets of full resolution by time and channel, in their order."""
    found = {
        (int(match[1]), int(match[2])): item
        for name, item in datasets.items()
        if (match := _FULL.fullmatch(name))
    }
    return dict(sorted(found.items()))


def imaris_image(
    file: h5py.File, datasets: Mapping[_Place, h5py.Dataset], opened: Sequence[OpenFile]
) -> OpenFile:
    """Show the channels of all times as one image, without the padding.

    Parameters
    ----------
    file : h5py.File
        Which describes the image.
    datasets : mapping
        From `imaris_channels`.
    opened : sequence of OpenFile
        The same datasets, opened.

    Raises
    ------
    ValueError
        If there is none, or some are missing or differ.
    """
    if not datasets:
        raise ValueError("it is an Imaris file without an image")
    image = file[IMAGE_DESCRIBED].attrs
    first = next(iter(datasets.values())).parent.attrs
    shape = [int(_text(first, f"ImageSize{axis}") or _text(image, axis) or 0) for axis in "ZYX"]
    if min(shape) < 1:
        raise ValueError("it does not say how large its image is")
    times, numbers = ({place[part] for place in datasets} for part in (0, 1))
    array = Stacked(
        [Cropped(each.array, shape) for each in opened],
        (len(times), len(numbers)),
    )
    unit = _text(image, "Unit") or "um"
    plane, row, column = (
        to_plausible_nanometres(_extent(image, number) / size, unit)
        for number, size in zip((2, 1, 0), shape, strict=True)
    )
    return OpenFile(
        array,
        "TCZYX",
        pixel_size(row, column),
        resident=sum(each.resident for each in opened),
        plane_distance=plane,
    )


def _extent(image: Any, axis: int) -> float:
    low, high = (float(_text(image, f"Ext{end}{axis}") or 0) for end in ("Min", "Max"))
    return high - low


def _text(attributes: Any, name: str) -> str:
    """Return an attribute, which Imaris keeps letter by letter; "" where there is none."""
    letters = np.ravel(attributes.get(name, b"")).astype(np.bytes_)
    return b"".join(letters.tolist()).decode("utf-8", "replace").strip("\0 ")
