"""What programs mean by the HDF5 files that they write: MATLAB, Velox, BigDataViewer, EMD."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import h5py
import numpy as np

from napari_affmae.data.formats.arrays.views import Reinterpreted
from napari_affmae.data.formats.files.foreign import Surroundings
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.files.paths import is_regular
from napari_affmae.data.formats.hdf5.links import check_links, check_storage
from napari_affmae.data.formats.metadata.attributes import axes_of, voxel_size_of
from napari_affmae.data.sources.layout import named_axes
from napari_affmae.data.sources.units import VoxelSize, pixel_size, to_plausible_nanometres

_VELOX = re.compile(r"Data/Image/[^/]+/Data")
_BIG_DATA = re.compile(r"t(\d+)/s(\d+)/(\d+)/cells")
_MOST_METADATA = 2**22  # bytes of text that is read beside an image


def image_datasets(datasets: Mapping[str, h5py.Dataset]) -> tuple[dict[str, h5py.Dataset], str]:
    """Return those of a file's datasets that its program takes for images, and a note on that."""
    if any(map(_VELOX.fullmatch, datasets)):
        return {name: item for name, item in datasets.items() if _VELOX.fullmatch(name)}, ""
    big_data = {name: match for name in datasets if (match := _BIG_DATA.fullmatch(name))}
    full = sorted(name for name, match in big_data.items() if int(match[3]) == 0)
    if not full:
        return dict(datasets), ""
    note = f"the first of its {len(full)} images is used, {full[0]}; the last is {full[-1]}"
    return {full[0]: datasets[full[0]]}, note if full[1:] else ""


def described(opened: OpenFile, dataset: h5py.Dataset, surroundings: Surroundings) -> OpenFile:
    """Add what the dataset's program says of its axes, values and sizes."""
    name = (dataset.name or "").strip("/")
    if "MATLAB_class" in dataset.attrs:
        return replace(opened, axes=_matlab_axes(dataset))
    if _VELOX.fullmatch(name):
        opened = replace(opened, axes="YXT"[: dataset.ndim])
        return _with_sizes(opened, partial(_velox_sizes, dataset, surroundings))
    if match := _BIG_DATA.fullmatch(name):
        opened = replace(opened, axes="ZYX")
        if dataset.dtype == np.int16:  # numbers without a sign, kept as if they had one
            opened = replace(opened, array=Reinterpreted(opened.array, np.uint16))
        return _with_sizes(opened, partial(_big_data_sizes, dataset, int(match[2])))
    if "emd_group_type" in dataset.parent.attrs:
        opened = replace(opened, axes="TZYX"[-dataset.ndim :])
        return _with_sizes(opened, partial(_emd_sizes, dataset, surroundings))
    axes = named_axes([dimension.label for dimension in dataset.dims], dataset.shape)
    axes = axes or axes_of(dataset.attrs, dataset.shape)
    attributes = [one.attrs for one in _upwards(dataset)]
    return _with_sizes(replace(opened, axes=axes), partial(voxel_size_of, attributes, axes))


def _upwards(dataset: h5py.Dataset) -> list[Any]:
    """Return a dataset and the groups that it is in, from the innermost."""
    found: list[Any] = [dataset]
    while found[-1].name not in {None, "/"}:
        found.append(found[-1].parent)
    return found


def _with_sizes(opened: OpenFile, sizes: Callable[[], VoxelSize]) -> OpenFile:
    """Add sizes; where their description is damaged, the image can still be read."""
    try:
        plane, row, column = sizes()
    except (ValueError, ET.ParseError) as error:
        note = f"what it says of the size of its pixels cannot be read, so it is unknown: {error}"
        return replace(opened, notes=[*opened.notes, note])
    return replace(opened, pixel_size=pixel_size(row, column), plane_distance=plane)


def _matlab_axes(dataset: h5py.Dataset) -> str:
    """MATLAB's first axis are the rows, and it stores the last axis first."""
    is_colour = dataset.ndim == 3 and dataset.shape[0] == 3 and dataset.dtype == np.uint8
    return "SXY" if is_colour else "I" * (dataset.ndim - 2) + "XY"


def _velox_sizes(dataset: h5py.Dataset, surroundings: Surroundings) -> VoxelSize:
    """Sizes by the JSON text that Velox keeps as bytes, a column for each frame."""
    metadata = _beside(dataset, "Metadata", surroundings)
    if metadata is None or metadata.ndim != 2 or metadata.dtype != np.uint8:
        return None, None, None
    text = bytes(metadata[:_MOST_METADATA, 0]).split(b"\0")[0]
    result = json.loads(text).get("BinaryResult", {})
    size = result.get("PixelSize", {})
    return (
        None,
        to_plausible_nanometres(float(size.get("height", 0)), result.get("PixelUnitY")),
        to_plausible_nanometres(float(size.get("width", 0)), result.get("PixelUnitX")),
    )


def _big_data_sizes(dataset: h5py.Dataset, setup: int) -> VoxelSize:
    """Sizes by the XML file that BigDataViewer keeps beside, the fastest axis first."""
    beside = Path(dataset.file.filename).with_suffix(".xml")
    if not is_regular(beside):
        return None, None, None
    with beside.open("rb") as file:
        text = file.read(_MOST_METADATA)
    for view in ET.fromstring(text).iter("ViewSetup"):
        if view.findtext("id", "").strip() == str(setup):
            unit = view.findtext("voxelSize/unit")
            lengths = view.findtext("voxelSize/size", "").split()[::-1]
            plane, row, column = (
                to_plausible_nanometres(float(length), unit) for length in lengths
            )
            return plane, row, column
    return None, None, None


def _emd_sizes(dataset: h5py.Dataset, surroundings: Surroundings) -> VoxelSize:
    """Sizes by the positions along each axis, in units such as ``[n_m]``."""
    steps: list[float | None] = []
    for number in range(1, dataset.ndim + 1):
        positions = _beside(dataset, f"dim{number}", surroundings)
        if positions is None or positions.ndim != 1 or len(positions) < 2:
            steps.append(None)
            continue
        first, second = map(float, positions[:2])
        unit = positions.attrs.get("units", "")
        unit = unit.decode() if isinstance(unit, bytes) else str(unit)
        steps.append(
            to_plausible_nanometres(abs(second - first), unit.strip("[]").replace("_", ""))
        )
    plane, row, column = [None, *steps][-3:]
    return plane, row, column


def _beside(dataset: h5py.Dataset, name: str, surroundings: Surroundings) -> h5py.Dataset | None:
    """Return the dataset of a name in the same group, if it is there and may be read."""
    group = dataset.parent
    check_links(dataset.file, f"{group.name}/{name}", surroundings)
    found = group.get(name)
    if not isinstance(found, h5py.Dataset):
        return None
    check_storage(found, surroundings)
    return found
