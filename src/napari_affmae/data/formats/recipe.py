"""Which reader opens a path: a small record that other processes can use too."""

import stat
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_affmae.data.formats.handles import OpenFile
from napari_affmae.data.formats.paths import is_regular, mode_of
from napari_affmae.data.sources.failures import failure
from napari_affmae.errors import UnreadableFileError

_TIFF, _PNG_JPEG, _MRC, _HDF5, _ZARR = "tiff", "png_jpeg", "mrc", "hdf5", "ome_zarr"
_KINDS = {
    **dict.fromkeys((".tif", ".tiff", ".btf", ".tf8"), _TIFF),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), _PNG_JPEG),
    **dict.fromkeys((".mrc", ".mrcs", ".rec", ".map", ".st"), _MRC),
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), _HDF5),
}

#: Endings of the names of files that can be opened.
SUFFIXES = tuple(_KINDS)

_ZARR_MARKERS = (".zarray", ".zgroup", "zarr.json")


@dataclass(frozen=True, slots=True)
class FileRecipe:
    """How a file is opened, here or in another process.

    Attributes
    ----------
    path : Path
        The file or zarr folder, absolute.
    kind : str
        The module in this package that opens it.
    inner : str or None
        The array inside; None where the module chooses.
    sparse : bool or None
        Whether planes of which a zarr folder holds nothing are of its fill value;
        None says so when there is one.
    outside : bool
        Whether files are followed that the file names outside its folder.
    """

    path: Path
    kind: str
    inner: str | None
    sparse: bool | None = None
    outside: bool = False

    @classmethod
    def of(cls, text: str, *, sparse: bool | None = None, outside: bool = False) -> "FileRecipe":
        """Choose the reader of a path, which may name an array inside: ``file.h5:/dataset``.

        Raises
        ------
        UnreadableFileError
            If the file is missing or of an unknown kind.
        """
        path, inner = split_inner(text)
        return cls(path.absolute(), _kind(path), inner, sparse, outside)

    def open(self) -> OpenFile:
        """Open the file; the reader's libraries are imported only now.

        Raises
        ------
        UnreadableFileError
            If the file is damaged or cut short; a `FileAccessError` if the system
            does not give it.
        SystemLimitError
            If memory or open files run out.
        """
        _kind(self.path)  # a regular file still, not a pipe by now
        try:
            reader = import_module(f"napari_affmae.data.formats.{self.kind}")
        except OSError as error:  # modules are files too
            raise failure(error, f"cannot read {self.path}") from error
        arguments: dict[str, Any] = {}
        if self.kind in {_HDF5, _ZARR}:
            arguments["inner"] = self.inner
        if self.kind == _ZARR:
            arguments["sparse"] = self.sparse
        if self.kind in {_HDF5, _TIFF}:
            arguments["outside"] = self.outside
        try:
            file: OpenFile = reader.open_file(self.path, **arguments)
        except Exception as error:  # decoders raise errors of every kind
            raise failure(error, f"cannot read {self.path}") from error
        return file


def _kind(path: Path) -> str:
    mode = mode_of(path)
    if stat.S_ISDIR(mode):
        if not is_zarr(path):
            raise UnreadableFileError(
                f"{path} is a folder and no zarr array; choose one of the images in it"
            )
        return _ZARR
    if not stat.S_ISREG(mode):
        raise UnreadableFileError(
            f"{path} is a pipe, a device or a socket; only regular files are read"
        )
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise UnreadableFileError(
            f"{path} is of no known kind; known are zarr folders and {', '.join(SUFFIXES)}"
        )
    return kind


def split_inner(text: str) -> tuple[Path, str | None]:
    """Split ``file.h5:/dataset`` into the file and the array inside."""
    head, separator, inner = text.rpartition(":/")
    suffix = Path(head).suffix.lower()
    if separator and (suffix == ".zarr" or _KINDS.get(suffix) == _HDF5):
        return Path(head), f"/{inner.strip('/')}"
    return Path(text), None


def default_name(path: str | Path) -> str:
    """Name a file by its last part, and by the array inside: ``file.h5:/dataset``."""
    file, inner = split_inner(str(path))
    return file.name if inner is None else f"{file.name}:{inner}"


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr array or group.

    Raises
    ------
    FileAccessError
        If the system does not say.
    """
    return any(is_regular(folder / marker) for marker in _ZARR_MARKERS)
