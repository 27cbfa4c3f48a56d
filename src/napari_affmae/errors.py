"""Errors that can end a run, with messages for the person who started it.

Wrong arguments raise `ValueError` or `TypeError`; these classes are for states
that only occur during the work. None of them is a `RuntimeError`, because napari's
generator workers silently drop those.
"""

from pathlib import Path


class AffmaeError(Exception):
    """An error that the user can act on.

    The message says what happened, where, and what to do.
    """


class UnreadableFileError(AffmaeError):
    """A file cannot be opened or is cut short."""


class FileAccessError(UnreadableFileError):
    """The system does not give a file, which need not be damaged: no permission, a failing disk."""


class SystemLimitError(AffmaeError):
    """The memory or the number of open files does not suffice, whatever file is read.

    So this is no `UnreadableFileError`, for which an image may be left out.
    """


class RunExistsError(AffmaeError):
    """A new run was to be made in a folder that holds one."""


class CheckpointError(AffmaeError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class ExportError(AffmaeError):
    """A model cannot be written in the format that was asked for."""


class DivergedError(AffmaeError):
    """The loss or its gradient is no longer finite."""


class OutOfMemoryError(AffmaeError):
    """Not even a single image fits the device's memory."""


class OtherProcessError(AffmaeError):
    """Of several processes that train together, another one failed or cannot be reached."""


class OtherStoppedError(OtherProcessError):
    """Of several processes that train together, another one was asked to stop."""


class UnwritableError(AffmaeError):
    """A file or folder cannot be made or written.

    Parameters
    ----------
    message : str
        What happened, why, and what to do.
    path : Path, optional
        The file or folder that could not be written.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class DiskFullError(UnwritableError):
    """The disk of the run folder is full."""


class DeviceUnavailableError(AffmaeError):
    """The requested device is not there, or cannot compute in the requested precision."""


class DataError(AffmaeError):
    """Images or labels do not fit the task or each other."""


class TooFewClassesError(DataError):
    """Fewer than two classes are painted, so there is nothing to learn yet."""


class UnreadablePairError(DataError, UnreadableFileError):
    """An image or its labels cannot be read; the message names both."""
