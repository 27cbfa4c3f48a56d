"""Where the user looks, for a job in another thread."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_affmae.engine.inference.tiles import Region


class Gaze:
    """Where the user looks; the window's thread notes it, and a job asks for it."""

    def __init__(self) -> None:
        self._part: tuple[int, slice, slice] | None = None

    def look(self, part: tuple[int, slice, slice] | None) -> None:
        """Note plane, rows and columns of the result; None where they are not known."""
        self._part = part

    def __call__(self) -> "Region | None":
        """Return that part of the image which is segmented."""
        from napari_affmae.engine.inference.tiles import Region

        part = self._part
        return None if part is None else Region([part[0]], *part[1:])
