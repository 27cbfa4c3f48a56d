"""Writes a segmentation to files, plane by plane."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import LabelClass
from napari_affmae.data import ImageSource
from napari_affmae.engine.events import BandDone, Event, PlaneDone
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.origin import Origin
from napari_affmae.files import write_errors


class PlaneWriter:
    """Writes the planes of a segmentation as they are computed.

    Use it as a context manager: files appear complete or not at all.

    Parameters
    ----------
    target : Path
        The label image; probabilities go to a file of this name beside it.
    source : ImageSource
        The image that is segmented; gives the planes and the pixel size.
    origin : Origin, optional
        What the segmentation is computed from; written into the files.
    probabilities : bool
        Whether probabilities are written.
    classes : sequence of LabelClass
        What the labels mean; written into the files.

    Raises
    ------
    UnwritableError
        If another process is writing one of the files, or one cannot be written.
    """

    def __init__(
        self,
        target: Path,
        source: ImageSource,
        origin: Origin | None = None,
        *,
        probabilities: bool = False,
        classes: Sequence[LabelClass] = (),
    ) -> None:
        self._files = ExitStack()
        self._shape = (source.height, source.width)
        self._labels = PlaneFile.like(target, source, origin, classes)
        self._probabilities: PlaneFile | None = None
        if probabilities:
            beside = probabilities_path(target)
            self._probabilities = PlaneFile.like(beside, source, origin, classes)
        self._plane: BinaryIO | None = None

    def __enter__(self) -> Self:
        with ExitStack() as files:
            # Left in the other order, so that labels mean that the probabilities are there too.
            files.enter_context(self._labels)
            if self._probabilities is not None:
                files.enter_context(self._probabilities)
            self._files = files.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def take(self, event: Event) -> None:
        """Write the part of a plane that an event carries, if any."""
        match event:
            case BandDone(probabilities=band, rows=rows) if band is not None:
                if self._probabilities is not None:
                    with write_errors(self._probabilities.path):
                        self._put_aside(band, rows.start, self._probabilities.path.parent)
            case PlaneDone(labels=labels):
                self._labels.write(labels)
                if self._probabilities is not None and self._plane is not None:
                    stack = np.memmap(self._plane, np.float32, "r")
                    self._probabilities.write(stack.reshape(-1, *self._shape))

    def _put_aside(self, band: NDArray[np.float32], start: int, folder: Path) -> None:
        """Write rows to a temporary file, because a TIFF takes one whole class after the other."""
        if self._plane is None:
            self._plane = self._files.enter_context(TemporaryFile(dir=folder))  # noqa: SIM115
        height, width = self._shape
        for number, rows in enumerate(band):
            self._plane.seek((number * height + start) * width * rows.itemsize)
            self._plane.write(rows.tobytes())
        self._plane.flush()


def probabilities_path(target: Path) -> Path:
    """Return the path of the class probabilities of a label image."""
    return target.with_name(f"{target.stem}_probabilities.tif")
