"""Writes files so that an interruption or a full disk leaves no incomplete file."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_affmae.errors import DiskFullError, UnwritableError

# EFBIG: a quota on file size; EDQUOT: one on the user's space (not on Windows).
_NO_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
#: Names of files that are being written, or that a kill left half written.
TEMPORARY = re.compile(r"\.affmae-[0-9a-f]{16}-[0-9a-f]{8}")


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
        File to create.
    *parts : bytes
        Its content.

    Raises
    ------
    FileExistsError
        If there is something of that name, be it a link to nowhere.
    """
    with path.open("xb") as file:
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
    temporary = temporary_path(path)
    with write_errors(path, sum(map(len, parts))):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_bytes(temporary, *parts)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def temporary_path(path: Path) -> Path:
    """Choose the name under which a file is written before it is renamed; another each time.

    It is short whatever the file is called. Nobody can guess it and put a link there.

    Parameters
    ----------
    path : Path
        The file that is to be made.
    """
    return path.with_name(f"{_hidden(path)}-{secrets.token_hex(4)}")


def lock_path(path: Path) -> Path:
    """Return the file whose lock says that a file is being written."""
    return path.with_name(f"{_hidden(path)}.lock")


def scratch_path(path: Path) -> Path:
    """Return the folder of what is finished of a file that is made in parts."""
    return path.with_name(f"{_hidden(path)}.parts")


def remove_leftovers(path: Path) -> None:
    """Delete what killed processes have left half written of a file, while nobody writes it.

    Parameters
    ----------
    path : Path
        The file that was to be made.
    """
    for entry in path.parent.iterdir():
        if TEMPORARY.fullmatch(entry.name) and entry.name.startswith(_hidden(path)):
            remove_entry(entry)


def remove_entry(path: Path) -> None:
    """Delete a file, a link or a folder; what a link points to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _hidden(path: Path) -> str:
    return f".affmae-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}"


def parse_json(content: bytes) -> Any:
    """Read JSON.

    Parameters
    ----------
    content : bytes
        UTF-8 text.

    Raises
    ------
    ValueError
        If it is not JSON in UTF-8, or is nested too deeply to be read.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


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
