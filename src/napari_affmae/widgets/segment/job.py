"""The job of a segmentation: it runs in a worker and fills a result that layers show."""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from napari_affmae.config import LabelClass, ObjectsConfig, SegmentConfig
from napari_affmae.data.sources.layout import plane_number
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine import events as ev
from napari_affmae.engine.results.tables import Table
from napari_affmae.engine.store.run_names import plain_label
from napari_affmae.widgets.layers.layer_sources import shifted, source_geometry, step_sizes
from napari_affmae.widgets.running.loading import loading
from napari_affmae.widgets.segment.gaze import Gaze
from napari_affmae.widgets.segment.result import LARGEST, Result, bytes_needed
from napari_affmae.widgets.segment.stored_objects import find_stored

if TYPE_CHECKING:
    from napari_affmae.engine.results.origin import Origin
    from napari_affmae.engine.results.volume import Place

_NANOMETRES = 1000.0  # in a micrometre


def size_column(table: Table) -> str:
    """Return the name of the column of sizes with the best unit that a table has."""
    return next(name for name in ("volume_um3", "area_um2", "size_px") if name in table)


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
class ResultReady(ev.Event):
    """The model fits the image: this result will be filled, or is complete already.

    `name` is the image's name, `geometry` places a layer of the result, and `origin` is
    the plane, row and column of the result's first pixel in the image. `image` is the part of
    the image that is segmented.
    """

    result: Result
    name: str
    geometry: Mapping[str, Any]
    origin: tuple[int, int, int]
    image: ImageSource


@dataclass(frozen=True)
class PlanesWritten(ev.Event):
    """More is there of some planes of the result."""

    planes: Sequence[int]


@dataclass(frozen=True)
class StackProgress(ev.Event):
    """How far a result on the disk is: tiles of this run, and planes of the whole stack."""

    done: int
    total: int
    planes_done: int
    planes: int
    seconds_left: float | None


@dataclass(frozen=True)
class ObjectsSought(ev.Event):
    """How far the search for objects is; `total` is None before they are measured."""

    done: int = 0
    total: int | None = None


@dataclass(frozen=True)
class ObjectsFound(ev.Event):
    """Objects (int32, 0 for none), a table with a row for each, and the box that holds each.

    Objects are numbered from 1 without gaps; the first row and box are those of object 1.
    """

    objects: NDArray[np.int32]
    table: Table
    boxes: list[tuple[slice, ...]]

    def within(self, low: float, high: float) -> Generator[ev.Event, None, None]:
        """Keep the objects of some sizes, and number them anew; yields them.

        Parameters
        ----------
        low, high : float
            Smallest and largest size, in the unit of the table's last column of sizes.
        """
        yield ObjectsSought()
        sizes = self.table[size_column(self.table)]
        # An object that was deleted has a row still, and no pixels.
        kept = np.flatnonzero((sizes >= low) & (sizes <= high) & (self.table["size_px"] > 0))
        numbers = np.zeros(len(sizes) + 1, np.int32)
        numbers[kept + 1] = np.arange(1, len(kept) + 1)
        table = {name: column[kept] for name, column in self.table.items()}
        table["label"] = numbers[kept + 1]
        yield ObjectsFound(numbers[self.objects], table, [self.boxes[number] for number in kept])


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

    def find(self, ready: ResultReady) -> Generator[ev.Event, None, None]:
        """Find the objects in a finished segmentation; their places are given in the image.

        Parameters
        ----------
        ready : ResultReady
            The finished segmentation; `find_stored` finds the objects of one that is too large
            to be held in memory.
        """
        folder = ready.result.folder
        if folder is not None and ready.result.is_large:
            yield from find_stored(self.values, self.config, ready, folder)
            return
        yield ObjectsSought()
        with loading():  # without a collection of garbage amid it
            from napari_affmae.engine import label_objects, measure_objects  # noqa: F401
            from napari_affmae.engine.objects import shapes  # noqa: F401
        classes = ready.result.loaded()
        objects = self._label(classes)
        yield from self._measured(ready, classes, objects)

    def _measured(
        self, ready: ResultReady, classes: NDArray[Any], objects: NDArray[np.int32]
    ) -> Generator[ev.Event, None, None]:
        """Measure objects, in micrometres where the pixel size is known."""
        from napari_affmae.engine import measure_objects

        plane = classes.shape[-2:]
        steps = step_sizes(ready.geometry)[-3 if self.config.three_d else -2 :]
        known = [step / _NANOMETRES for step in steps if step is not None]
        spacing = known if len(known) == len(steps) else None
        table = measure_objects(
            objects.reshape(-1, *plane), spacing, "um", classes.reshape(-1, *plane)
        )
        names = {item.value: item.name for item in ready.result.classes}
        values = table.pop("class")
        table["class"] = np.array([names.get(int(value), str(value)) for value in values], str)
        for axis, first in zip(("plane", "row", "column"), ready.origin, strict=True):
            table[axis] = table[axis] + first
        shapes = yield from self._shapes(ready, objects, spacing)
        boxes = [box for box in find_objects(objects) if box is not None]
        yield ObjectsFound(objects, {**table, **shapes}, boxes)

    def _shapes(
        self, ready: ResultReady, objects: NDArray[np.int32], spacing: list[float] | None
    ) -> Generator[ev.Event, None, dict[str, NDArray[Any]]]:
        """Measure shapes and grey values, plane by plane or volume by volume."""
        from napari_affmae.engine.objects.shapes import measure_shapes

        ndim = min(3, objects.ndim) if self.config.three_d else 2
        parts = objects.reshape(-1, *objects.shape[-ndim:])
        planes = parts[0].size // (objects.shape[-2] * objects.shape[-1])
        unit, tables = "px" if spacing is None else "um", []
        for number, part in enumerate(parts):
            yield ObjectsSought(number, len(parts))
            if not part.any():
                continue
            first = number * planes
            grey = np.stack([_grey(ready.image, first + plane) for plane in range(planes)])
            tables.append(measure_shapes(part, spacing, unit, grey.reshape(part.shape)))
        if not tables:
            tables = [measure_shapes(parts[0], spacing, unit, parts[0])]
        # Objects are numbered in the order of their planes, so the rows are in order too.
        joined = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
        del joined["label"]
        return joined

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
        Folder for results on the disk.
    on_disk : bool
        Whether to write the result to the disk; one that is too large for memory always is.
    objects : ObjectsWanted or None
        The objects to find afterwards.
    gaze : Gaze
        Where the user looks, which comes first of what is written to the disk.
    """

    image: ImageSource | Path
    channels: tuple[int, ...] | None
    geometry: Mapping[str, Any] | None
    region: Region
    model: Path
    classes: tuple[LabelClass, ...]
    config: SegmentConfig
    folder: Path
    on_disk: bool = False
    objects: ObjectsWanted | None = None
    gaze: Gaze = field(default_factory=Gaze)

    def run(self) -> Generator[ev.Event, None, None]:
        """Segment the image; `ResultReady` is yielded when the model is known to fit it."""
        from napari_affmae.data import open_source

        source = self.image
        if isinstance(source, Path):
            source = open_source(source, channels=self.channels)
            for note in source.notes:
                yield ev.Notice(note, "info", source.name)
        chances = self.config.probabilities
        size = bytes_needed(self.region.shape(source), self.classes, probabilities=chances)
        fill = self._to_disk if self.on_disk or size > LARGEST else self._to_memory
        ready: ResultReady | None = None
        with closing(fill(source)) as events:
            for event in events:
                if isinstance(event, ResultReady):
                    ready = event
                yield event
        if self.objects is not None and ready is not None:
            yield from self.objects.find(ready)

    def _to_memory(self, source: ImageSource) -> Generator[ev.Event, None, None]:
        from napari_affmae.engine import segment

        result = Result.in_memory(
            self.region.shape(source), self.classes, probabilities=self.config.probabilities
        )
        with closing(segment(self.region.cut(source), self.model, self.config)) as events:
            for event in events:
                match event:
                    case ev.RunStarted():
                        yield event
                        yield self._ready(source, result)
                    case ev.BandDone():
                        result.write(event.plane, event.rows, event.labels, event.probabilities)
                        yield PlanesWritten([event.plane])
                    case ev.PlaneDone():
                        pass  # its rows are written
                    case _:
                        yield event

    def _to_disk(self, source: ImageSource) -> Generator[ev.Event, None, None]:
        """Begin a result on the disk, go on with it, or show it if it is complete."""
        from napari_affmae.engine import VolumeSegmenter
        from napari_affmae.engine.compute.device import plan_device
        from napari_affmae.engine.results.volume import Volume, is_complete
        from napari_affmae.engine.volumes.origins import Origins

        part, origins = self.region.cut(source), Origins(self.model, self.config)
        precision = plan_device(self.config.device, self.config.precision).precision
        place = self._place(source, origins.of(part, precision))
        if place.labels.exists() and is_complete(place.labels):
            yield self._ready(source, Result.on_disk(Volume(place), self.region.shape(source)))
            yield ev.Notice(
                "this was segmented before with the same model and settings, and is shown; delete "
                "its folder to segment it anew",
                "info",
            )
            return
        volume: Volume | None = None
        volumes = VolumeSegmenter(origins, self.config)
        with closing(volumes.segment(part, place.labels, focus=self.gaze)) as events:
            for event in events:
                match event:
                    case ev.ResultBegun():
                        volume = Volume(place)
                        shown = Result.on_disk(volume, self.region.shape(source))
                        yield self._ready(source, shown)
                    case ev.TilesDone() if volume is not None:
                        complete = volume.ledger.count(range(volume.plan.first(1)))
                        planes = complete * part.n_planes // volume.plan.first(1)
                        left = event.seconds_left
                        yield StackProgress(event.done, event.total, planes, part.n_planes, left)
                    case ev.BlockDone() if volume is not None:
                        volume.ledger.reload()
                        if event.level == 0:
                            yield PlanesWritten(volume.plan.source_planes(event.box))
                        else:
                            yield PlanesWritten(range(part.n_planes))
                    case _:
                        yield event

    def _place(self, source: ImageSource, origin: "Origin") -> "Place":
        """Name the result after all that decides about it, so that it is found again."""
        from napari_affmae.engine.results.target import probabilities_path
        from napari_affmae.engine.results.volume import Place

        chances = self.config.probability_type if self.config.probabilities else None
        facts = (source.name, self.region, origin, chances)
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:8]
        labels = self.folder / f"{plain_label(source.name)} {digest}.zarr"
        return Place(labels, probabilities_path(labels) if self.config.probabilities else None)

    def _ready(self, source: ImageSource, result: Result) -> ResultReady:
        whole = source_geometry(source) if self.geometry is None else self.geometry
        corner = self.region.corner(len(result.shape))
        origin = self.region.origin(source)
        image = self.region.cut(source)
        return ResultReady(result, source.name, shifted(whole, corner), origin, image)


def _grey(image: ImageSource, plane: int) -> NDArray[Any]:
    """Return the grey values of a plane; of several channels the mean."""
    channels: NDArray[Any] = image.read(plane)
    return channels[0] if len(channels) == 1 else channels.mean(axis=0, dtype=np.float32)
