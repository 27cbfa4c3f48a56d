"""A file that one process at a time writes beside its place, and that appears when complete."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from filelock import FileLock, Timeout

from napari_affmae.errors import UnwritableError
from napari_affmae.files import (
    lock_path,
    remove_leftovers,
    sync_folder,
    temporary_path,
    write_errors,
)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder of results, and remove what kills have left of it.

    Parameters
    ----------
    path : Path
        What is to be written; its parent is made.

    Raises
    ------
    UnwritableError
        If another process writes it, or it cannot be written.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.exists()  # names that are too long are refused before hours of work
        # Not local to the thread: a generator may be closed in another thread than it ran in.
        lock = FileLock(lock_path(path), thread_local=False)
        file = Path(lock.lock_file)
        if file.is_symlink():
            file.unlink()
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UnwritableError(
                f"another process is writing {path}; wait until it has finished, "
                "or choose another folder",
                path,
            ) from error
    try:
        with write_errors(path):
            remove_leftovers(path)
        yield
    finally:
        with suppress(OSError):  # Windows deletes no file that is open, but does so on release
            file.unlink(missing_ok=True)
        lock.release()


class NewFile:
    """A file in the making.

    Use it as a context manager: it holds a lock, and removes what was not committed.

    Parameters
    ----------
    path : Path
        Where the complete file will be; a file that is there is replaced.

    Raises
    ------
    UnwritableError
        If another process writes it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = temporary_path(path)
        self._file: BinaryIO | None = None
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(writing(self.path))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def open(self) -> BinaryIO:
        """Create the file under its temporary name; it can be read and written."""
        self._file = self._part.open("x+b")
        self._held.callback(self._discard, self._file)
        return self._file

    def commit(self) -> None:
        """Give the complete file its name, once it is on the disk."""
        if self._file is None:
            raise ValueError(f"{self.path} was not opened")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self.path)
        sync_folder(self.path.parent)

    def _discard(self, file: BinaryIO) -> None:
        with suppress(OSError):  # a full disk has been told by the write before
            file.close()
        self._part.unlink(missing_ok=True)
