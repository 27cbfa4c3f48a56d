"""Writes files so that an interruption or a full disk leaves no incomplete file."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_affmae.errors import DiskFullError, UnwritableError

# EFBIG: a quota on file size; EDQUOT: one on the user's space (not on Windows).
_NO_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def write_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn errors of the system in the block into errors that name the file and a remedy.

    Parameters
    ----------
    path : Path
        Where the block writes.
    needed : int, optional
        Bytes that the block writes, for the message.

    Raises
    ------
    DiskFullError
        If there is no space left; the message says how much is needed and free.
    UnwritableError
        If it cannot be written for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise UnwritableError(
                f"cannot write {path}: {error.strerror or error}. Check that its disk is there, "
                "that no folder above it is a file, and that you may write to it, "
                "or choose another folder",
                path,
            ) from error
        free = shutil.disk_usage(_existing(path)).free
        wanted = "" if needed is None else f"{_megabytes(needed)} are needed, "
        raise DiskFullError(
            f"cannot write {path}: {error.strerror} ({wanted}{_megabytes(free)} are free). "
            "What was complete before is intact: free some space and try again, or resume the run",
            path,
        ) from error


def write_bytes(path: Path, *parts: bytes) -> None:
    """Write a new file and wait until it is on the disk.

    Parameters
    ----------
    path : Path
        File to create or overwrite.
    *parts : bytes
        Its content.
    """
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def replace_bytes(path: Path, *parts: bytes) -> None:
    """Write a file under another name and rename it, so that readers see the old or the new one.

    Parameters
    ----------
    path : Path
        File to create or replace; its folder is made where it does not exist.
    *parts : bytes
        Its content.

    Raises
    ------
    DiskFullError
        If the disk has no room; the old file is intact then.
    UnwritableError
        If it cannot be written for another reason.
    """
    temporary = path.with_name(f".{path.name}.new")
    with write_errors(path, sum(map(len, parts))):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_bytes(temporary, *parts)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def to_json(value: Any) -> bytes:
    """Encode plain data as readable JSON.

    Parameters
    ----------
    value : Any
        Dictionaries, lists, strings, numbers, None.

    Returns
    -------
    bytes
        UTF-8 text with a final newline.
    """
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries (new files, renames) are on the disk.

    Parameters
    ----------
    path : Path
        The folder.
    """
    if os.name == "nt":  # folders cannot be opened there; NTFS journals renames
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
