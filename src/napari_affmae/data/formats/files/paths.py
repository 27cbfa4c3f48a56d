"""What the system says of a path, and which paths are addresses of the web."""

import re
import stat
from pathlib import Path

from napari_affmae.data.sources.failures import failure
from napari_affmae.errors import UnreadableFileError

# A `Path` makes one slash of two, and on Windows backslashes of them.
_URL = re.compile(r"(https?):/+(?=[^/])", re.IGNORECASE)


def url_of(path: str | Path) -> str | None:
    """Return the address of the web that a path stands for; None for files and folders."""
    text = path.as_posix() if isinstance(path, Path) else path
    return _URL.sub(r"\1://", text, count=1) if _URL.match(text) else None


def shown(path: str | Path) -> str:
    """Return how messages name a path: as it is, or as the address that was given."""
    return url_of(path) or str(path)


def mode_of(path: Path) -> int:
    """Return the kind and the permissions of what is at a path, behind links.

    Raises
    ------
    UnreadableFileError
        If it does not exist; a `FileAccessError` if the system does not say.
    """
    mode = _mode(path)
    if mode is None:
        raise UnreadableFileError(f"{path} does not exist")
    return mode


def is_regular(path: Path) -> bool:
    """Whether there is a file behind a path, and no folder, pipe or device.

    Raises
    ------
    FileAccessError
        If the system does not say.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a ValueError for names with a zero byte
        raise failure(error, f"cannot read {path}") from error
