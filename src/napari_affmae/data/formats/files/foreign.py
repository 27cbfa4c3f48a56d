"""Files that an image file names, such as those of its other planes.

Who opens an image does not expect others to be read from anywhere on the disk.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from napari_affmae.data.formats.files.paths import is_regular


@dataclass(frozen=True)
class Surroundings:
    """Where the files lie that an image file may name.

    Attributes
    ----------
    folder : Path
        Of the image file; files in it and below it may be named.
    anywhere : bool
        Whether the user allowed all others too.
    """

    folder: Path
    anywhere: bool = False

    @cached_property
    def _resolved(self) -> Path:
        return self.folder.resolve()

    def check(self, name: str, beside: Path) -> Path | None:
        """Return the regular file that a name means, or None where there is none.

        Parameters
        ----------
        name : str
            What a file says.
        beside : Path
            The folder of the file that says it.

        Raises
        ------
        ValueError
            If it means a file outside the folder, or no regular file.
        """
        path = beside / name
        if not (self.anywhere or path.parent.resolve().is_relative_to(self._resolved)):
            raise ValueError(
                f"it names the file {name}, which is not in its folder and is not followed; put "
                "all files of the image into one folder, or allow it (open_source with "
                "outside=True)"
            )
        if is_regular(path):
            return path
        if path.exists():
            raise ValueError(f"it names {name}, which is a pipe, a device, a socket or a folder")
        return None
