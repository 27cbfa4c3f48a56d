"""The job of a segmentation: it runs in a worker and fills arrays that layers show."""

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import LabelClass, ObjectsConfig, SegmentConfig
from napari_affmae.data.sources.layout import plane_number
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine import events as ev
from napari_affmae.engine.results.canvas import LARGEST, Canvas
from napari_affmae.engine.results.tables import Table
from napari_affmae.errors import DataError
from napari_affmae.widgets.layers.layer_sources import shifted, source_geometry, step_sizes


@dataclass(frozen=True)
class Region:
    """The part of an image that is segmented.

    Attributes
    ----------
    indices : tuple of int or None
        Position of the plane; None for all planes.
    rows, columns : slice or None
        The rectangle; None for whole planes.
    """

    indices: tuple[int, ...] | None = None
    rows: slice | None = None
    columns: slice | None = None

    def cut(self, source: ImageSource) -> ImageSource:
        """Return this part of an image."""
        from napari_affmae.data import window

        if self == Region():
            return source
        planes = None
        if self.indices is not None:
            planes = [plane_number(self.indices, source.plane_shape)]
        return window(source, planes=planes, rows=self.rows, columns=self.columns)

    def corner(self, ndim: int) -> tuple[int, ...]:
        """Return the index of the region's first pixel in an array of `ndim` axes."""
        lead = self.indices or (0,) * (ndim - 2)
        return (*lead, *(0 if part is None else part.start for part in (self.rows, self.columns)))

    def origin(self, source: ImageSource) -> tuple[int, int, int]:
        """Return the plane, row and column of the region's first pixel in an image."""
        plane = 0 if self.indices is None else plane_number(self.indices, source.plane_shape)
        *_, row, column = self.corner(2)
        return plane, row, column

    def shape(self, source: ImageSource) -> tuple[int, ...]:
        """Return the shape of the result; it has the image's axes except channels."""
        part = self.cut(source)
        lead = source.plane_shape if self.indices is None else (1,) * len(self.indices)
        return (*lead, part.height, part.width)


@dataclass(frozen=True)
class CanvasReady(ev.Event):
    """The model fits the image: rows will be written into this canvas.

    `name` is the image's name, `geometry` places a layer of the canvas, and `origin` is
    the plane, row and column of the canvas's first pixel in the image.
    """

    canvas: Canvas
    name: str
    geometry: Mapping[str, Any]
    origin: tuple[int, int, int]


@dataclass(frozen=True)
class RowsWritten(ev.Event):
    """Rows of a plane were written into the canvas."""

    plane: int


@dataclass(frozen=True)
class ObjectsSought(ev.Event):
    """The search for objects has started; it reports no progress."""


@dataclass(frozen=True)
class ObjectsFound(ev.Event):
    """Objects (int32, 0 for none), and a table of their measures with a row for each."""

    objects: NDArray[np.int32]
    table: Table


@dataclass(frozen=True)
class ObjectsWanted:
    """The objects to find.

    Attributes
    ----------
    values : tuple of int
        Classes.
    config : ObjectsConfig
        How objects are separated and selected.
    """

    values: tuple[int, ...]
    config: ObjectsConfig

    def find(self, ready: CanvasReady) -> Generator[ev.Event, None, None]:
        """Find the objects in a finished segmentation; their places are given in the image.

        Parameters
        ----------
        ready : CanvasReady
            The finished segmentation.

        Raises
        ------
        DataError
            If the segmentation is too large to be held in memory.
        """
        from napari_affmae.engine import measure_objects

        canvas = ready.canvas
        if canvas.folder is not None:
            raise DataError(
                f"objects are looked for in memory, and this result of "
                f"{canvas.nbytes / 2**30:.1f} GB is more than {LARGEST / 2**30:.0f} GB; "
                "segment a part of the image"
            )
        yield ObjectsSought()
        classes = canvas.labels
        plane = classes.shape[-2:]
        objects = self._label(classes)
        sizes = step_sizes(ready.geometry)[-3 if self.config.three_d else -2 :]
        known = [size for size in sizes if size is not None]
        table = measure_objects(
            objects.reshape(-1, *plane),
            known if len(known) == len(sizes) else None,
            classes=classes.reshape(-1, *plane),
        )
        for axis, first in zip(("plane", "row", "column"), ready.origin, strict=True):
            table[axis] = table[axis] + first
        yield ObjectsFound(objects, table)

    def _label(self, classes: NDArray[Any]) -> NDArray[np.int32]:
        """Give numbers to the objects, volume by volume."""
        from napari_affmae.engine import label_objects

        plane, stack = classes.shape[-2:], classes.shape[-3:-2] or (1,)
        objects = np.zeros(classes.shape, np.int32)
        volumes = classes.reshape(-1, *stack, *plane)
        count = 0
        for volume, out in zip(volumes, objects.reshape(volumes.shape), strict=True):
            found = label_objects(volume, self.values, **self.config.model_dump())
            out[:] = np.where(found > 0, found + count, 0)
            count += int(found.max(initial=0))
        return objects


@dataclass(frozen=True)
class SegmentationJob:
    """Everything that a run needs, without any object of Qt.

    Attributes
    ----------
    image : ImageSource or Path
        The source of a layer, or a file that is opened when the run starts.
    channels : tuple of int or None
        Channels of a file to use.
    geometry : Mapping[str, Any] or None
        The geometry of the layer; None for a file.
    region : Region
        The part to segment.
    model : Path
        Model file or run folder.
    classes : tuple of LabelClass
        The classes of the model.
    config : SegmentConfig
        Tiles, device and precision.
    folder : Path
        Folder for results that are too large for memory.
    objects : ObjectsWanted or None
        The objects to find afterwards.
    """

    image: ImageSource | Path
    channels: tuple[int, ...] | None
    geometry: Mapping[str, Any] | None
    region: Region
    model: Path
    classes: tuple[LabelClass, ...]
    config: SegmentConfig
    folder: Path
    objects: ObjectsWanted | None = None

    def run(self) -> Generator[ev.Event, None, None]:
        """Segment the image; `CanvasReady` is yielded when the model is known to fit it."""
        from napari_affmae.data import open_source
        from napari_affmae.engine import segment

        source = self.image
        if isinstance(source, Path):
            source = open_source(source, channels=self.channels)
            for note in source.notes:
                yield ev.Notice(note, "info", source.name)
        ready: CanvasReady | None = None
        with closing(segment(self.region.cut(source), self.model, self.config)) as events:
            for event in events:
                match event:
                    case ev.RunStarted():
                        yield event
                        ready = self._ready(source)
                        yield ready
                    case ev.BandDone() if ready is not None:
                        rows = event.rows
                        ready.canvas.write(event.plane, rows, event.labels, event.probabilities)
                        yield RowsWritten(event.plane)
                    case ev.PlaneDone():
                        pass  # its rows are written
                    case _:
                        yield event
        if self.objects is not None and ready is not None:
            yield from self.objects.find(ready)

    def _ready(self, source: ImageSource) -> CanvasReady:
        canvas = Canvas(
            self.region.shape(source),
            self.classes,
            probabilities=self.config.probabilities,
            folder=self.folder,
            name=source.name,
        )
        whole = source_geometry(source) if self.geometry is None else self.geometry
        corner = self.region.corner(len(canvas.shape))
        origin = self.region.origin(source)
        return CanvasReady(canvas, source.name, shifted(whole, corner), origin)
