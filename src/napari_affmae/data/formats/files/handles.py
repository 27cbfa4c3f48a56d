"""A pool of open files, which limits how many are open at a time.

A folder may hold more images than a process may have open files, or than fit
into memory where they must be decoded whole. So sources keep a recipe to open
their file, and this pool closes those used longest ago.
"""

import atexit
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from napari_affmae.config import LabelClass
from napari_affmae.data.formats.files.pieces import largest_piece
from napari_affmae.data.sources.failures import is_too_many_files
from napari_affmae.data.sources.source import ArrayLike, Content, PixelSize

if sys.platform != "win32":
    import resource

_FILES = 64
_BYTES = 2**29
# What the limit of open files is raised to, where the system lets us.
_LIMIT = 4096
# The pool takes this part of the limit; libraries, threads that open images and the program
# around it need the rest.
_SHARE = 4
# Other threads close soon what they have open, so it is worth waiting.
_WAITS = (0.0, 0.02, 0.1, 0.5)

T = TypeVar("T")
Part = tuple[slice, ...]


def nothing() -> None:
    """Do nothing; for files that need no closing."""


@dataclass(frozen=True)
class OpenFile:
    """The array of an open file, and the file's metadata.

    Attributes
    ----------
    array : ArrayLike
        Read by basic indexing, safely from several threads.
    axes : str or None
        One letter for each axis; None if the file has no axes.
    pixel_size : (float, float) or None
        (row, column) in nanometres.
    plane_distance : float or None
        Nanometres from plane to plane along the axis Z.
    classes : sequence of LabelClass
        What the values mean, where the file says that they are classes.
    close : callable
        Closes the file.
    notes : sequence of str
        Choices made on opening that the user should know.
    resident : int
        Bytes that it may keep in memory while it is open.
    files : sequence of Path
        All files of an image that is stored in several files.
    alpha : sequence of int
        Channels that say how opaque a pixel is, which are not read unless asked for.
    content : "image", "labels" or "result"
        See `ImageSource`.
    stored : callable or None
        Lists parts of the array, a slice for each axis, that are stored; all others
        hold a fill value. None where that is not known.
    lacks_others : bool
        Whether it would be another image if files were there that it names.
    """

    array: ArrayLike
    axes: str | None = None
    pixel_size: PixelSize | None = None
    close: Callable[[], None] = nothing
    notes: Sequence[str] = ()
    resident: int = 0
    files: Sequence[Path] = ()
    plane_distance: float | None = None
    alpha: Sequence[int] = ()
    lacks_others: bool = False
    classes: Sequence[LabelClass] = ()
    content: Content = "image"
    stored: Callable[[], Iterable[Part]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(int(size) for size in self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype


@dataclass
class _Entry:
    """A file that is open, or is being opened by its first reader while others wait."""

    file: OpenFile | None = None
    readers: int = 0
    admitted: int = 0
    discarded: bool = False
    opening: threading.Lock = field(default_factory=threading.Lock)

    @property
    def resident(self) -> int:
        return 0 if self.file is None else self.file.resident

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


@cache
def limit_of_open_files() -> int:
    """Return how many files this process may have open, after raising that once.

    Many desktops allow 256 or 1024, far below what they allow those who ask.
    """
    if sys.platform == "win32":
        return 512  # of the C library
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _LIMIT if hard == unlimited else min(_LIMIT, hard)
    if soft != unlimited and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return _LIMIT if soft == unlimited else soft


@dataclass
class HandlePool:
    """Keeps at most `files` files open and `size` bytes in memory, besides files being read.

    Where the system allows few open files, it keeps fewer than `files`. Files that keep
    much in memory are read side by side only while all of them fit what one piece may
    take, see `largest_piece`.
    """

    files: int = _FILES
    size: int = _BYTES
    _entries: OrderedDict[int, _Entry] = field(default_factory=OrderedDict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _keys: Iterator[int] = field(default_factory=count)
    _busy: int = 0  # bytes that the files being read may keep
    _less_busy: threading.Condition = field(init=False)

    def __post_init__(self) -> None:
        self._less_busy = threading.Condition(self._lock)

    def new_key(self) -> int:
        """Return a key that no other file has."""
        return next(self._keys)

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def use(self, key: int, opener: Callable[[], OpenFile]) -> Iterator[OpenFile]:
        """Give access to the file of `key`, which is opened if needed and stays open meanwhile."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            entry.readers += 1
        try:
            # Not under the pool's lock: others read on while a file takes long to open.
            with entry.opening:
                if entry.file is None:
                    entry.file = opener()
                    self._trim()
            with self._admitted(entry):
                yield entry.file
        finally:
            with self._lock:
                entry.readers -= 1
                if entry.discarded and not entry.readers:
                    entry.close()

    @contextmanager
    def _admitted(self, entry: _Entry) -> Iterator[None]:
        """Wait until there is memory for what a file keeps, unless it is being read already."""
        with self._lock:
            self._less_busy.wait_for(
                lambda: (
                    entry.admitted
                    or not self._busy
                    or self._busy + entry.resident <= largest_piece()
                )
            )
            self._busy += 0 if entry.admitted else entry.resident
            entry.admitted += 1
        try:
            yield
        finally:
            with self._lock:
                entry.admitted -= 1
                self._busy -= 0 if entry.admitted else entry.resident
                self._less_busy.notify_all()

    def with_room(self, action: Callable[[], T]) -> T:
        """Do what opens files; where too many are open, close unused ones and try again.

        Raises
        ------
        Exception
            What `action` raises, for this reason several times or for another.
        """
        for seconds in _WAITS:
            try:
                return action()
            except Exception as error:
                if not is_too_many_files(error):
                    raise
            self._close_older_half()
            time.sleep(seconds)
        return action()

    def discard(self, key: int) -> None:
        """Close the file of `key`, now or when its last reader is done."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return
            entry.discarded = True
            if not entry.readers:
                entry.close()

    def clear(self) -> None:
        """Close all files."""
        for key in list(self._entries):
            self.discard(key)

    def _in_order(self) -> list[tuple[int, _Entry]]:
        """Files from the one used longest ago; a copy, as garbage collection may discard some."""
        known = [(key, self._entries.get(key)) for key in list(self._entries)]
        return [(key, entry) for key, entry in known if entry is not None]

    def _close_older_half(self) -> None:
        with self._lock:
            unused = [key for key, entry in self._in_order() if not entry.readers]
            for key in unused[: -(-len(unused) // 2)]:
                self.discard(key)

    def _trim(self) -> None:
        most = min(self.files, max(1, limit_of_open_files() // _SHARE))
        with self._lock:
            entries = self._in_order()
            resident = sum(entry.resident for _, entry in entries)
            for key, entry in entries:
                if len(self._entries) <= most and resident <= self.size:
                    return
                if not entry.readers:
                    resident -= entry.resident
                    self.discard(key)


POOL = HandlePool()
atexit.register(POOL.clear)
