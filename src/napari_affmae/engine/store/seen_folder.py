"""A run's folder, for the processes that help the one which writes to it."""

from pathlib import Path
from types import TracebackType
from typing import Self

from napari_affmae.engine.store.run_folder import RunFolder


class SeenFolder(RunFolder):
    """A run on disk, for a process that only reads it: another one has opened it to write.

    Parameters
    ----------
    path : Path
        The run folder, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._look_at(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def open_run(path: Path, *, writes: bool) -> RunFolder:
    """Open a run folder to write to it, or, beside a process that does, to look at it."""
    return RunFolder(path) if writes else SeenFolder(path)
