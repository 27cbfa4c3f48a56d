"""Zarr folders on the web, read piece by piece."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import zarr
from zarr.storage import FsspecStore

from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.files.paths import url_of
from napari_affmae.data.formats.zarr.reader import ZarrStore, as_stored, open_image

_NEEDED = ("fsspec", "aiohttp")


def open_file(path: Path, inner: str | None) -> OpenFile:
    """Open the image of a zarr folder at an address of the web.

    Parameters
    ----------
    path : Path
        The address.
    inner : str or None
        As in `ome_zarr.open_file`.

    Raises
    ------
    ValueError
        If there is no zarr array or group, the choice is ambiguous, or packages that
        this needs are not installed.
    OSError
        If the server cannot be reached.
    """
    if any(find_spec(name) is None for name in _NEEDED):
        raise ValueError(
            "reading from the web needs more packages; install them with "
            'pip install "napari-affmae[http]"'
        )
    # Environment variables name the proxies of institutes.
    options = {"client_kwargs": {"trust_env": True}}
    store = FsspecStore.from_url(url_of(path) or str(path), options, read_only=True)
    try:
        node = zarr.open(store, mode="r")
    except FileNotFoundError as error:
        raise ValueError("at this address is no zarr array or group") from error

    def paths() -> Iterator[str]:
        if not isinstance(node, zarr.Group) or node.metadata.consolidated_metadata is None:
            raise ValueError(
                "its arrays cannot be listed over the web; choose one by its name behind the "
                "address, as in http://server/folder.zarr:/name"
            )
        return (name for name, _ in node.members(max_depth=None))

    return open_image(ZarrStore(node, paths, as_stored), inner)
