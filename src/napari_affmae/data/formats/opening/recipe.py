"""Which reader opens a path: a small record that other processes can use too."""

import stat
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.files.image_folders import is_image_folder, is_n5, is_zarr
from napari_affmae.data.formats.files.paths import mode_of, shown, url_of
from napari_affmae.data.formats.opening.kinds import MODULES, SUFFIXES, reader_of, why_not_read
from napari_affmae.data.sources.failures import failure
from napari_affmae.errors import UnreadableFileError

_TIFF, _ENCODED, _HDF5, _ZARR, _NRRD = "tiff", "encoded", "hdf5", "ome_zarr", "nrrd"
_WEB, _N5 = "zarr_web", "n5"
# Readers of files that hold several arrays, that may lack planes, that may name other files, and
# that may have colours for numbers.
_CONTAINERS = {_HDF5, _ZARR, "zarr_zip", _WEB, _N5}
_SPARSE = {_ZARR}
_NAMING_FILES = {_HDF5, _TIFF, _NRRD}
_COLOURING = {_TIFF, _ENCODED}


@dataclass(frozen=True, slots=True)
class FileRecipe:
    """How a file is opened, here or in another process.

    Attributes
    ----------
    path : Path
        The file or zarr folder, absolute; or an address of the web.
    kind : str
        What opens it: a name in `MODULES` of `kinds.py`.
    inner : str or None
        The array inside; None where the reader chooses.
    sparse : bool or None
        Whether planes of which a zarr folder holds nothing are of its fill value;
        None says so when there is one.
    outside : bool
        Whether files are followed that the file names outside its folder.
    labels : bool
        Whether the file's values are classes.
    """

    path: Path
    kind: str
    inner: str | None
    sparse: bool | None = None
    outside: bool = False
    labels: bool = False

    @classmethod
    def of(
        cls,
        text: str,
        *,
        sparse: bool | None = None,
        outside: bool = False,
        labels: bool = False,
    ) -> "FileRecipe":
        """Choose the reader of a path, which may name an array inside: ``file.h5:/dataset``.

        Raises
        ------
        UnreadableFileError
            If the file is missing or of an unknown kind.
        """
        path, inner = split_inner(text)
        kind = _kind(path)
        return cls(path if kind == _WEB else path.absolute(), kind, inner, sparse, outside, labels)

    @property
    def place(self) -> str:
        """What messages call the file."""
        return shown(self.path)

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
            reader = import_module(f"napari_affmae.data.formats.{MODULES[self.kind]}")
        except OSError as error:  # modules are files too
            raise failure(error, f"cannot read {self.place}") from error
        arguments: dict[str, Any] = {}
        if self.kind in _CONTAINERS:
            arguments["inner"] = self.inner
        if self.kind in _SPARSE:
            arguments["sparse"] = self.sparse
        if self.kind in _NAMING_FILES:
            arguments["outside"] = self.outside
        if self.kind in _COLOURING:
            arguments["labels"] = self.labels
        try:
            file: OpenFile = reader.open_file(self.path, **arguments)
        except Exception as error:  # decoders raise errors of every kind
            raise failure(error, f"cannot read {self.place}") from error
        return file


def _kind(path: Path) -> str:
    if url_of(path) is not None:
        if reader_of(path) is not None:
            raise UnreadableFileError(
                f"{shown(path)} is not read: only zarr folders are read from the web; download it"
            )
        return _WEB
    mode = mode_of(path)
    if stat.S_ISDIR(mode):
        if is_n5(path):
            return _N5
        if not is_zarr(path):
            raise UnreadableFileError(
                f"{path} is a folder and no array of zarr or N5; choose one of the images in it"
            )
        return _ZARR
    if not stat.S_ISREG(mode):
        raise UnreadableFileError(
            f"{path} is a pipe, a device or a socket; only regular files are read"
        )
    reader = reader_of(path)
    if reader is None:
        reason = why_not_read(path)
        raise UnreadableFileError(
            f"{path} is not read: it is {reason}"
            if reason
            else f"{path} is of no known kind; known are zarr folders and {', '.join(SUFFIXES)}"
        )
    return reader


def split_inner(text: str) -> tuple[Path, str | None]:
    """Split ``file.h5:/dataset`` into the file and the array inside; also ``folder:/dataset``."""
    head, separator, inner = text.rpartition(":/")
    outer = Path(head)
    if separator and (_may_hold_arrays(outer) or url_of(head) is not None or _is_folder(outer)):
        return outer, f"/{inner.strip('/')}"
    return Path(text), None


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(mode_of(path))
    except UnreadableFileError:
        return False


def _may_hold_arrays(path: Path) -> bool:
    return path.suffix.lower() in {".zarr", ".n5"} or reader_of(path) in _CONTAINERS


def holds_arrays(path: Path) -> bool:
    """Whether a file or folder is of a kind that may hold several arrays.

    Raises
    ------
    FileAccessError
        If the system does not say.
    """
    return _may_hold_arrays(path) or is_image_folder(path)


def default_name(path: str | Path) -> str:
    """Name a file by its last part, and by the array inside: ``file.h5:/dataset``."""
    file, inner = split_inner(str(path))
    return file.name if inner is None else f"{file.name}:{inner}"
