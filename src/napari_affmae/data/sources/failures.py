"""What an error of a decoder or of the system says about a file."""

import errno
import os
from collections.abc import Iterator

from napari_affmae.errors import (
    AffmaeError,
    FileAccessError,
    SystemLimitError,
    UnreadableFileError,
)

_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
# What decoders raise for damaged files, and the system for those that are missing or of another
# kind. All other numbers are troubles of the system.
_OF_THE_FILE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


def failure(error: Exception, what: str) -> AffmaeError:
    """Return the error that says what went wrong and whether the file is at fault.

    Parameters
    ----------
    error : Exception
        Raised while a file or a folder was opened or read.
    what : str
        What was not possible, with the file's name: "cannot read a.tif".

    Returns
    -------
    AffmaeError
        `SystemLimitError` where memory or open files ran out, `FileAccessError`
        where the system refused, else `UnreadableFileError`. To be raised from `error`.
    """
    numbers = [one.errno for one in _chain(error) if isinstance(one, OSError)]
    if errno.ENOMEM in numbers or any(isinstance(one, MemoryError) for one in _chain(error)):
        return SystemLimitError(
            f"{what}: there is not enough memory; close other programs and layers, or choose "
            "smaller images"
        )
    if is_too_many_files(error):
        return SystemLimitError(
            f"{what}: too many files are open; close other programs, or raise the limit of open "
            "files (ulimit -n), and try again"
        )
    refused = [number for number in numbers if number not in _OF_THE_FILE]
    if not refused:
        return UnreadableFileError(f"{what}: {str(error) or type(error).__name__}")
    # Names of computers that are not found have numbers of their own.
    reason = os.strerror(refused[0] or 0) if refused[0] in errno.errorcode else str(error)
    if refused[0] in _FORBIDDEN:
        return FileAccessError(f"{what}: {reason}; ask for the right to read it")
    return FileAccessError(
        f"{what}: {reason}; this is the system's answer and not damage of the file: check the "
        "disk or the network, and try again"
    )


def is_too_many_files(error: BaseException) -> bool:
    """Whether an error was raised because too many files are open."""
    return any(isinstance(one, OSError) and one.errno in _TOO_MANY for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an error and those that it was raised from or while handling."""
    following: BaseException | None = error
    while following is not None:
        yield following
        if following.__cause__ is not None or following.__suppress_context__:
            following = following.__cause__
        else:
            following = following.__context__
