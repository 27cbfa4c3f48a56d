"""An index of image files in the user's cache, so that they are not opened only to be listed.

It is a help and never a source of truth: an entry holds for one state of one file,
and a file is opened and checked whatever the index says before its pixels are read.
"""

import hashlib
import logging
import sqlite3
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Annotated, Self

import numpy as np
from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from napari_affmae.config import LabelClass
from napari_affmae.data.formats.metadata.texts_beside import times_beside
from napari_affmae.data.formats.opening.facts import FileFacts, look_into
from napari_affmae.data.formats.opening.recipe import FileRecipe
from napari_affmae.data.sources.source import Content

logger = logging.getLogger(__name__)

# Of these formats, one file is the whole image. What others say may be in further files.
_ALONE = frozenset({"dm", "encoded", "mrc", "nifti", "npy", "ser", "tiff"})
# Goes up where entries of before say other things than those of now.
_FORMAT = "2"
_LIBRARIES = ("imagecodecs", "mrcfile", "nibabel", "pillow", "tifffile")
# Entries of 150 bytes or so; the oldest go first.
_MOST_ENTRIES = 1_000_000
_AT_ONCE = 5000
# A file that was changed so recently may change once more without a change of its times.
_SETTLED_NANOSECONDS = 3_000_000_000
_SECONDS_FOR_OTHERS = 2.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS files (number INTEGER PRIMARY KEY, key BLOB UNIQUE, facts TEXT)"
)


class _Entry(BaseModel):
    """Facts as they are stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[PositiveInt, ...]
    dtype: Annotated[str, Field(pattern=r"^[|<>][buif]\d+$")]
    axes: str | None = None
    pixel_size: tuple[float, float] | None = None
    plane_distance: float | None = None
    notes: tuple[str, ...] = ()
    alpha: tuple[NonNegativeInt, ...] = ()
    classes: tuple[LabelClass, ...] = ()
    content: Content = "image"


class FileIndex:
    """What is known of image files; used as a context manager, by several threads.

    Where the index cannot be read or written, the log says so and files are opened.

    Parameters
    ----------
    path : Path, optional
        The index's own file; the one in the user's cache by default.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = index_path() if path is None else path
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._new: dict[bytes, str] = {}

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self._path,
                timeout=_SECONDS_FOR_OTHERS,
                isolation_level=None,
                check_same_thread=False,  # there is a lock
            )
            self._connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._store()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def facts(self, recipe: FileRecipe, path: Path) -> FileFacts:
        """Return what is known of a file, which is opened where nothing is.

        Parameters
        ----------
        recipe, path
            See `look_into`, whose errors are raised.
        """
        before = _state(recipe)
        known = None if before is None else self._known(_key(recipe, before))
        if known is not None:
            return known
        facts = look_into(recipe, path)
        if before is not None and before == _state(recipe) and _is_settled(before):
            self._note(_key(recipe, before), facts)
        return facts

    def _known(self, key: bytes) -> FileFacts | None:
        with self._lock:
            if self._connection is None:
                return None
            try:
                row = self._connection.execute(
                    "SELECT facts FROM files WHERE key = ?", (key,)
                ).fetchone()
            except sqlite3.Error as error:
                self._give_up(error)
                return None
        try:
            return None if row is None else _unpacked(row[0])
        except (ValidationError, TypeError) as error:
            logger.warning("an entry of the index %s is damaged: %s", self._path, error)
            return None

    def _note(self, key: bytes, facts: FileFacts) -> None:
        if len(facts.files) > 1 or facts.lacks_others:
            return
        with self._lock:
            self._new[key] = _packed(facts)
            if len(self._new) >= _AT_ONCE:
                self._store()

    def _store(self) -> None:
        """Write what is new; the lock is held."""
        rows, self._new = self._new, {}
        if self._connection is None or not rows:
            return
        try:
            with self._connection as index:
                index.execute("BEGIN IMMEDIATE")
                index.executemany(
                    "INSERT OR REPLACE INTO files (key, facts) VALUES (?, ?)", rows.items()
                )
                index.execute(
                    "DELETE FROM files WHERE number <= (SELECT max(number) FROM files) - ?",
                    (_MOST_ENTRIES,),
                )
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Go on without the index; a damaged one is deleted, and made anew the next time."""
        logger.warning("the index of files %s is not used: %s", self._path, error)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        # Its subclasses say that the index is busy, or a disk full: it is whole then.
        if type(error) is sqlite3.DatabaseError:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def index_path() -> Path:
    """Return where the index is: in the user's cache."""
    return Path(user_cache_path("napari-affmae", appauthor=False)) / "files.sqlite"


# Device, number and bytes, then times in nanoseconds: at which the content and the entry changed,
# and the texts beside the image.
_State = tuple[int, ...]


def _state(recipe: FileRecipe) -> _State | None:
    """Return what differs after a change of a file; None of files that are not indexed."""
    if recipe.kind not in _ALONE or recipe.outside:
        return None
    try:
        now = recipe.path.stat()
    except OSError:  # whoever opens it says so
        return None
    times = (now.st_mtime_ns, now.st_ctime_ns, *times_beside(recipe.path))
    return now.st_dev, now.st_ino, now.st_size, *times


def _is_settled(state: _State) -> bool:
    return max(state[3:]) + _SETTLED_NANOSECONDS < time.time_ns()


def _key(recipe: FileRecipe, state: _State) -> bytes:
    """Name a state of a file, as these versions of the readers see it."""
    said = (_readers(), str(recipe.path), recipe.labels, state)
    return hashlib.blake2b(repr(said).encode(), digest_size=16).digest()


@cache
def _readers() -> tuple[str, ...]:
    return (_FORMAT, *(version(name) for name in ("napari-affmae", *_LIBRARIES)))


def _packed(facts: FileFacts) -> str:
    return _Entry(
        shape=facts.shape,
        dtype=facts.dtype.str,
        axes=facts.axes,
        pixel_size=facts.pixel_size,
        plane_distance=facts.plane_distance,
        notes=tuple(facts.notes),
        alpha=tuple(facts.alpha),
        classes=tuple(facts.classes),
        content=facts.content,
    ).model_dump_json(exclude_defaults=True)


def _unpacked(text: str) -> FileFacts:
    entry = _Entry.model_validate_json(text)
    said = entry.model_dump(exclude={"dtype", "classes"})
    return FileFacts(dtype=np.dtype(entry.dtype), classes=entry.classes, **said)
