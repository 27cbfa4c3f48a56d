"""Many images, of which one may fail."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from napari_affmae.cli.terminal import say
from napari_affmae.errors import (
    AffmaeError,
    DataError,
    DiskFullError,
    UnreadableFileError,
    UnwritableError,
)


class Batch:
    """Reports what fails, and goes on with the next image.

    Parameters
    ----------
    console : rich.console.Console
        Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._failed: list[str] = []

    @contextmanager
    def image(self, name: str) -> Iterator[None]:
        """Work on one image.

        Raises
        ------
        DiskFullError
            No other image would find room either.
        """
        try:
            yield
        except DiskFullError:
            raise
        except (DataError, UnreadableFileError, UnwritableError) as error:
            self._failed.append(name)
            say(self._console, f"error: {error}", "red")

    def finish(self, count: int, what: str, remedy: str) -> None:
        """Tell which images failed.

        Parameters
        ----------
        count : int
            Number of all images.
        what : str
            What could not be done with them, such as ``"segmented"``.
        remedy : str
            What to do.

        Raises
        ------
        AffmaeError
            If an image failed.
        """
        if self._failed:
            raise AffmaeError(
                f"{len(self._failed)} of {count} images could not be {what}: "
                f"{', '.join(self._failed)}. {remedy}"
            )
