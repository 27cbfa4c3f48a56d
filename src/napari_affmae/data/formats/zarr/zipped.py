"""Zarr folders that are packed into one file (.zarr.zip, .ozx)."""

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore, ZipStore

from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.files.image_folders import ZARR_MARKERS
from napari_affmae.data.formats.files.pieces import check_piece
from napari_affmae.data.formats.zarr.reader import ZarrStore, as_stored, open_image


class BoundedZip(WrapperStore[ZipStore]):
    """A packed store of which no entry is read that is larger than memory allows.

    Parameters
    ----------
    store : ZipStore
        The store.
    sizes : dict
        Bytes of its entries, unpacked.
    """

    def __init__(self, store: ZipStore, sizes: dict[str, int]) -> None:
        super().__init__(store)
        self._sizes = sizes

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what is stored under a key; None where nothing is."""
        if byte_range is None:
            check_piece([self._sizes.get(key, 0)], "u1", f"its part {key}")
        return await super().get(key, prototype, byte_range)


def open_file(path: Path, inner: str | None) -> OpenFile:
    """Open the image of a packed zarr folder, which may lie in a folder of the file.

    Parameters
    ----------
    path : Path
        The file.
    inner : str or None
        As in `ome_zarr.open_file`.

    Raises
    ------
    ValueError
        If there is no zarr array or group, or the choice is ambiguous.
    zipfile.BadZipFile
        If the file is no archive, or is cut short.
    """
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    markers = (PurePosixPath(name) for name in sizes)
    nodes = {marker.parent for marker in markers if marker.name in ZARR_MARKERS}
    if not nodes:
        raise ValueError("it holds no zarr array or group")
    top = min(nodes, key=lambda node: len(node.parts))

    def paths() -> Iterator[str]:
        below = (node for node in nodes if node != top and node.is_relative_to(top))
        return (str(node.relative_to(top)) for node in below)

    packed = ZipStore(path, mode="r")
    try:
        node = zarr.open(BoundedZip(packed, sizes), mode="r", path="/".join(top.parts))
        # What is not stored was never written: a file does not lose some of its parts.
        file = open_image(ZarrStore(node, paths, as_stored), inner)
    except BaseException:
        packed.close()
        raise
    return replace(file, close=packed.close)
