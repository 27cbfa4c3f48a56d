"""Opening files as image layers that are read piece by piece."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from napari.types import FullLayerData
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_affmae.data import open_source
from napari_affmae.data.formats.opening.kinds import SUFFIXES
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.widgets.layers.layer_sources import source_geometry

if TYPE_CHECKING:
    import dask.array as da
    import napari

_CHUNK = 1024  # rows and columns that are read at once
_COLOURS = 3


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[FullLayerData]]:
    """Return the function with which napari reads the files that the manifest names.

    Parameters
    ----------
    path : str or sequence of str
        Files that are to be opened.
    """
    del path  # it matches the manifest's patterns, and reading reports whether it is damaged
    return read_layers


def read_layers(path: str | Sequence[str]) -> list[FullLayerData]:
    """Open files as image layers, without reading more than what is shown.

    Parameters
    ----------
    path : str or sequence of str
        One file, or several.

    Returns
    -------
    list of (dask.array.Array, dict, str)
        A layer of each channel, except that three channels of bytes are colours.

    Raises
    ------
    UnreadableFileError
        If a file is damaged or of an unknown kind.
    """
    paths = [path] if isinstance(path, str) else path
    return [layer for each in paths for layer in _layers(open_source(each))]


def open_images(viewer: "napari.viewer.Viewer") -> None:
    """Ask for files, and open them as layers that are read piece by piece."""
    patterns = " ".join(f"*{suffix}" for suffix in SUFFIXES)
    names, _ = QFileDialog.getOpenFileNames(
        QApplication.activeWindow(),
        "Open images that are read piece by piece",
        filter=f"Images ({patterns})",
    )
    for name in names:
        for layer in read_layers(name):
            viewer.add_layer(Layer.create(*layer))


def _layers(source: ImageSource) -> list[FullLayerData]:
    for note in source.notes:
        show_info(f"{source.name}: {note}")
    geometry = source_geometry(source)
    name = Path(source.name).stem
    if source.n_channels == _COLOURS and source.dtype == np.uint8:
        return [(_as_dask(source, None), {"name": name, "rgb": True, **geometry}, "image")]
    names = [f"{name} channel {channel}" for channel in source.channels]
    return [
        (_as_dask(source, number), {"name": each, **geometry}, "image")
        for number, each in enumerate(names if len(names) > 1 else [name])
    ]


def _as_dask(source: ImageSource, channel: int | None) -> "da.Array":
    """Return an array (planes ..., rows, columns) of one channel, or with all in a last axis."""
    import dask.array as da

    colours = () if channel is not None else (source.n_channels,)
    shape = (*source.plane_shape, source.height, source.width)
    chunk = (*[1] * len(source.plane_shape), _CHUNK, _CHUNK)
    chunks = da.core.normalize_chunks(chunk, shape)  # type: ignore[no-untyped-call]
    return da.map_blocks(  # type: ignore[no-untyped-call]
        _read_block,
        source=source,
        channel=channel,
        chunks=(*chunks, *((count,) for count in colours)),
        dtype=source.dtype,
        meta=np.empty((0,) * (len(shape) + len(colours)), source.dtype),
    )


def _read_block(
    source: ImageSource, channel: int | None, block_id: tuple[int, ...]
) -> NDArray[Any]:
    """Read one block of the array, which lies within a plane."""
    lead = len(source.plane_shape)
    plane = int(np.ravel_multi_index(block_id[:lead], source.plane_shape)) if lead else 0
    rows, columns = (
        slice(_CHUNK * number, _CHUNK * (number + 1)) for number in block_id[lead : lead + 2]
    )
    block = source.read(plane, rows, columns)
    pixels = np.moveaxis(block, 0, -1) if channel is None else block[channel]
    return pixels[(np.newaxis,) * lead]
