"""Features that networks computed of images, kept on disk beside the runs within a limit.

A file is named after all that its values follow from, so it is never out of date: another
network, image or normalisation has other names. It holds a hash and the values behind it,
nothing that is interpreted. It is a help and never a source of truth: what is missing,
damaged or foreign is computed again.
"""

import hashlib
import logging
import os
import re
import shutil
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.errors import AffmaeError
from napari_affmae.files import TEMPORARY, replace_bytes

logger = logging.getLogger(__name__)

#: Folder of the kept features in the folder of runs.
FEATURES = "features"
_DTYPE = np.dtype("<f4")
_HASH_BYTES = 32
_FILE = re.compile(rf"[0-9a-f]{{{2 * _HASH_BYTES}}}\.features")
# Strokes and checkpoints need the rest of the disk more than this does.
_LEFT_FREE = 2**30
# What a kill has left half written is older than any write takes.
_SECONDS_OF_WRITING = 3600.0


@dataclass
class _File:
    """A file of the folder, when it was used last, and its bytes."""

    path: Path
    used: float
    size: int


class KeptFeatures:
    """Arrays of float32 by their keys, of which those go first that were not used for longest.

    Several processes may use one folder. What cannot be kept is logged once, and hurts nobody:
    it is computed again another time.

    Parameters
    ----------
    folder : Path
        Folder of the files; it is made with the first. Other files in it are left alone.
    most : Callable[[], int]
        Tells the limit of all files together, bytes; 0 keeps nothing. Called in the thread that
        writes, now and then, so that a limit which has changed holds.
    """

    def __init__(self, folder: Path, most: Callable[[], int]) -> None:
        self._folder, self._most = Path(folder), most
        self._lock = threading.Lock()
        self._unwritten: deque[tuple[bytes, NDArray[np.float32]]] = deque()
        self._thread: threading.Thread | None = None
        self._complaints: set[type] = set()

    def get(self, key: bytes, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Read an array.

        Parameters
        ----------
        key : bytes
            All that its values follow from; 32 bytes of a hash.
        shape : tuple of int
            Its shape.

        Returns
        -------
        ndarray or None
            None where it is not kept, or what is there cannot be trusted.
        """
        path = self._path(key)
        size = _HASH_BYTES + prod(shape) * _DTYPE.itemsize
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                logger.warning("%s is no file of %d bytes: it is computed again", path, size)
                return None
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read, so it is computed again: %s", path, error)
            return None
        if content[:_HASH_BYTES] != _digest(key, memoryview(content)[_HASH_BYTES:]):
            logger.warning("%s is damaged: it is computed again", path)
            return None
        with suppress(OSError):  # a folder that may only be read
            os.utime(path)
        values = np.frombuffer(content, _DTYPE, offset=_HASH_BYTES).reshape(shape)
        return values.astype(np.float32)  # a copy, which may be written to

    def put(self, key: bytes, values: NDArray[np.float32]) -> None:
        """Have an array written in the background.

        Parameters
        ----------
        key : bytes
            See `get`.
        values : ndarray
            It must not change any more.
        """
        with self._lock:
            self._unwritten.append((key, values))
            if self._thread is None:
                # The process may end at any time: what is half written has another name.
                self._thread = threading.Thread(
                    target=self._write_all, name="affmae-features", daemon=True
                )
                self._thread.start()

    def wait(self) -> None:
        """Wait until everything is written, or given up."""
        while (thread := self._thread) is not None and thread.is_alive():
            thread.join()

    def tidy(self) -> None:
        """Delete what exceeds the limit.

        Raises
        ------
        OSError
            If the folder cannot be read or a file cannot be deleted.
        """
        files = self._files()
        _make_room(files, self._room(files))

    def _write_all(self) -> None:
        """Write until nothing is left, then end; in the thread."""
        try:
            files = self._files()
            room = self._room(files)
            _make_room(files, room)
            while (item := self._next()) is not None:
                key, values = item
                size = _HASH_BYTES + values.nbytes
                # Files that others have written since count the next time.
                if size <= room:
                    _make_room(files, room - size)
                    files.append(self._write(key, values))
        except (AffmaeError, OSError) as error:
            self._complain(error)
            with self._lock:
                self._unwritten.clear()
                self._thread = None

    def _next(self) -> tuple[bytes, NDArray[np.float32]] | None:
        with self._lock:
            if self._unwritten:
                return self._unwritten.popleft()
            self._thread = None
            return None

    def _write(self, key: bytes, values: NDArray[np.float32]) -> _File:
        path, content = self._path(key), values.astype(_DTYPE).tobytes()
        replace_bytes(path, _digest(key, content), content)
        return _File(path, time.time(), _HASH_BYTES + len(content))

    def _room(self, files: list[_File]) -> int:
        """Return how many bytes all files together may have."""
        most = self._most()
        if most == 0:
            return 0
        self._folder.mkdir(parents=True, exist_ok=True)
        spare = shutil.disk_usage(self._folder).free - _LEFT_FREE
        if spare < 0:
            self._complain(OSError(f"the disk of {self._folder} is nearly full"))
        return max(0, min(most, sum(file.size for file in files) + spare))

    def _files(self) -> list[_File]:
        """List our files, the one used last at the end; what a kill has left is deleted."""
        found = []
        for entry in _entries(self._folder):
            with suppress(FileNotFoundError):  # another process has deleted it
                facts = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(facts.st_mode):
                    continue
                if _FILE.fullmatch(entry.name):
                    found.append(_File(Path(entry.path), facts.st_mtime, facts.st_size))
                elif TEMPORARY.fullmatch(entry.name) and (
                    time.time() - facts.st_mtime > _SECONDS_OF_WRITING
                ):
                    Path(entry.path).unlink()
        return sorted(found, key=lambda file: file.used)

    def _path(self, key: bytes) -> Path:
        return self._folder / f"{key.hex()}.features"

    def _complain(self, error: Exception) -> None:
        """Say what is wrong, of each kind once: all that is computed would meet it."""
        if type(error) not in self._complaints:
            self._complaints.add(type(error))
            logger.warning("features are not kept on disk, or fewer of them: %s", error)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _make_room(files: list[_File], room: int) -> None:
    """Delete the first files until the others fit."""
    size = sum(file.size for file in files)
    while files and size > room:
        file = files.pop(0)
        file.path.unlink(missing_ok=True)
        size -= file.size


def _digest(key: bytes, content: Any) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=_HASH_BYTES).digest()
