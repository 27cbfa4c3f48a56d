"""Finds, numbers and measures the objects of volumes that may be larger than memory.

Three passes: pieces of objects are found block by block, and kept; the pieces that touch where
blocks meet are joined; and their numbers are written block by block. Whatever the blocks are, the
result is that of `label_objects` on the whole.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_affmae.config import ObjectsConfig
from napari_affmae.data import ImageSource, read_labels
from napari_affmae.engine.compute.timing import Stopwatch
from napari_affmae.engine.events import Event, ObjectsProgress, ObjectsWritten
from napari_affmae.engine.objects.joining import Joined, join, tables
from napari_affmae.engine.objects.pieces import Numbers, find_pieces, overlaps, pairs_of
from napari_affmae.engine.objects.records import PieceRecord, PieceRecords, Side
from napari_affmae.engine.objects.sums import Position, sums_of
from napari_affmae.engine.results.new_file import writing
from napari_affmae.engine.results.object_plan import ObjectPlan
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.plan import BlockSizes, Box
from napari_affmae.engine.results.tables import count_rows, write_table
from napari_affmae.engine.results.target import begin, is_zarr_target, refuse_complete
from napari_affmae.engine.results.volume import (
    Parts,
    Place,
    Volume,
    completed_ns,
    is_complete,
    progress_of,
    read_plan,
)
from napari_affmae.engine.volumes.block_order import BlockOrder
from napari_affmae.engine.volumes.blocks import Task
from napari_affmae.engine.volumes.executor import Threads, Work, completed_blocks
from napari_affmae.errors import DataError
from napari_affmae.files import remove_entry, scratch_path, temporary_path, write_errors

# Bytes a pixel that a watershed takes at its peak.
_SEPARATING = 50
# What a TIFF file is made from, in its hidden folder.
_OBJECTS = "objects.zarr"


def objects_to_file(
    source: ImageSource,
    values: Sequence[int],
    config: ObjectsConfig,
    target: Path,
    *,
    image: ImageSource | None = None,
    overwrite: bool = False,
    sizes: BlockSizes | None = None,
) -> Generator[Event, None, None]:
    """Find the objects of a segmented image or stack; number them in a file and measure them.

    Memory does not grow with the volume, unless `separation` is above 0: touching objects are
    divided plane by plane, and in 3-D in the whole volume. A run that was stopped or killed goes
    on if it is started again with the same image, classes and settings.

    Parameters
    ----------
    source : ImageSource
        The classes of pixels.
    values : sequence of int
        The classes whose objects are wanted; an object never joins two.
    config : ObjectsConfig
        How objects are found.
    target : Path
        An OME-Zarr folder (``.zarr``), which grows, or an OME-TIFF, which appears when it is
        complete; the table lies beside it as CSV. Numbers are uint32, 0 for none, and follow the
        first pixels of objects.
    image : ImageSource, optional
        Of the same shape, to measure its grey values; of several channels the mean.
    overwrite : bool
        Whether to replace a complete result, or one that was begun otherwise.
    sizes : BlockSizes, optional
        How the volume is divided.

    Yields
    ------
    Event
        `ObjectsProgress`, and `ObjectsWritten` at the end.

    Raises
    ------
    DataError
        If the segmentation is not complete, holds no whole numbers, or has no planes to go
        through; if the image has another shape; or if what is separated does not fit in memory.
    UnreadableFileError
        If a file is damaged.
    UnwritableError
        If the result is complete, or cannot be written.
    """
    check_complete(source)
    plan = ObjectPlan.of(
        source,
        _fingerprint(source),
        tuple(values),
        config,
        grey=None if image is None else image.fingerprint(),
        pyramid=is_zarr_target(target),
        sizes=sizes,
    )
    _check(source, image, plan)
    scratch = scratch_path(target)
    with ExitStack() as files:
        planes: PlaneFile | None = None
        if is_zarr_target(target):
            files.enter_context(writing(target))
        else:
            planes = files.enter_context(PlaneFile.like(target, source))
        if _is_all_but_tidy(target, plan, scratch) and not overwrite:
            _tidy(target, scratch)
            yield ObjectsWritten(target, table_path(target), count_rows(table_path(target)))
            return
        refuse_complete(target, plan, overwrite=overwrite)
        place = target if planes is None else scratch / _OBJECTS
        search = _Search(source, image, plan, scratch)
        yield from search.run(place, target, anew=overwrite)
        if planes is not None:
            volume = Volume(Place(place))
            for plane in range(source.n_planes):
                planes.write(volume.label_plane(plane))
    _tidy(target, scratch)
    yield ObjectsWritten(target, table_path(target), search.count)


def table_path(target: Path) -> Path:
    """Return the path of the table of a result's objects."""
    return target.with_suffix(".csv")


def check_complete(source: ImageSource) -> None:
    """Check that a segmentation that this program has begun is complete.

    Raises
    ------
    DataError
        If it is not.
    """
    folder = _folder(source)
    found = None if folder is None else progress_of(folder)
    if found is not None and found[0] < found[1]:
        done, total = found
        raise DataError(
            f"{source.name} is not complete: {done} of its {total} blocks are done. Give the "
            "command that began it again, and then this one"
        )


def _is_all_but_tidy(target: Path, plan: ObjectPlan, scratch: Path) -> bool:
    """Whether a kill came when the result was complete, but what it is made from still there."""
    if not (target.exists() and scratch.exists()):
        return False
    if is_zarr_target(target):
        return read_plan(target) == plan and is_complete(target)
    made_from = scratch / _OBJECTS
    if not made_from.exists() or read_plan(made_from) != plan or not is_complete(made_from):
        return False
    # Else the file is the former one, which the new one was to replace.
    return target.stat().st_mtime_ns >= completed_ns(made_from)


def _tidy(target: Path, scratch: Path) -> None:
    """Remove what a result was made from; what a kill leaves of that the next run removes."""
    gone = temporary_path(target)
    scratch.replace(gone)
    remove_entry(gone)


def _folder(source: ImageSource) -> Path | None:
    """Return the folder of an image, or of a level of one; it may be a result of this program."""
    folder = source.path
    if folder is None or not folder.is_dir():
        return None
    return folder.parent if (folder.parent / "zarr.json").is_file() else folder


def _fingerprint(source: ImageSource) -> str:
    """Identify a label image; two segmentations may look alike where a fingerprint looks."""
    folder = _folder(source)
    plan = None if folder is None else read_plan(folder)
    made = "" if plan is None else f" {plan.fingerprint.hex()}"
    return f"{source.fingerprint()}{made}"


def _check(source: ImageSource, image: ImageSource | None, plan: ObjectPlan) -> None:
    if plan.settings.three_d and "t" in plan.axes and "z" not in plan.axes:
        raise DataError(
            f"{source.name} has time points, through which no object in 3-D goes; if they are "
            "planes, name its axes, as in ZYX"
        )
    shape = (source.n_planes, source.height, source.width)
    if image is not None and (image.n_planes, image.height, image.width) != shape:
        raise DataError(
            f"{image.name} has {image.n_planes} planes of {image.height} x {image.width} pixels "
            f"and {source.name} {shape[0]} of {shape[1]} x {shape[2]}; grey values need the image "
            "that was segmented"
        )
    needed, free = plan.block_pixels * _SEPARATING, psutil.virtual_memory().available
    if plan.settings.separation and needed > free:
        what = "the whole stack" if plan.settings.solid else "a whole plane"
        raise DataError(
            f"touching objects are separated in memory, {what} at once: about "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Set the separation to 0, "
            "or cut the image"
        )


class _Search:
    """The passes over a volume."""

    def __init__(
        self, source: ImageSource, image: ImageSource | None, plan: ObjectPlan, scratch: Path
    ) -> None:
        self.count = 0
        self._source = source
        self._image = image
        self._plan = plan
        self._scratch = scratch
        self._records = PieceRecords(scratch / "records")
        self._total = len(plan.blocks(0)) + plan.first(plan.levels)
        self._watch = Stopwatch()

    def run(self, place: Path, target: Path, *, anew: bool) -> Generator[Event, None, None]:
        """Find, join, measure and number; at the end the volume in a folder is complete."""
        found = self._scratch / "pieces.zarr"
        if self._scratch.is_symlink() or not found.exists() or read_plan(found) is None:
            remove_entry(self._scratch)  # what a kill has left of it
        flat = self._plan.model_copy(update={"steps": self._plan.steps[:1]})
        pieces = begin(Place(found), flat, target, anew=anew)
        finding = _FindWork(self._source, self._image, pieces, self._records)
        try:
            yield from self._pass("finding", pieces, finding, 0)
        finally:
            if not pieces.ledger.done:
                remove_entry(self._scratch)
        yield self._progress("joining", pieces.ledger.done, None)
        joined = join(self._records, self._plan)
        self.count = len(joined.first)
        sums = self._scratch / "sums.npy"
        with write_errors(sums):
            write_table(table_path(target), tables(self._records, self._plan, joined, sums))
            sums.unlink(missing_ok=True)
        objects = begin(Place(place), self._plan, target, anew=anew)

        def numbering(numbers: Sequence[int]) -> Task:
            return partial(_number, pieces, objects, joined, numbers)

        yield from self._pass("numbering", objects, numbering, pieces.ledger.done)

    def _pass(
        self, doing: str, volume: Volume, work: Work, before: int
    ) -> Generator[Event, None, None]:
        # Where objects are separated a block is all that fits in memory.
        most = 1 if self._plan.settings.separation else 2
        threads = Threads(most)
        started, already = partial(threads.starting, work), volume.ledger.done
        self._watch = Stopwatch()
        self._watch.start()
        order = BlockOrder(volume, 1)
        with closing(completed_blocks(volume, started, most, order)) as completed:
            for number in completed:
                if number is None:
                    continue
                self._watch.stop()
                done = volume.ledger.done
                each = self._watch.elapsed / (done - already)
                yield self._progress(doing, before + done, each)
                self._watch.start()

    def _progress(self, doing: str, done: int, each: float | None) -> ObjectsProgress:
        left = None if each is None else each * (self._total - done)
        return ObjectsProgress(doing, done, self._total, left)


class _FindWork:
    """Finds the pieces of objects in a block."""

    def __init__(
        self,
        source: ImageSource,
        image: ImageSource | None,
        volume: Volume,
        records: PieceRecords,
    ) -> None:
        self._source = source
        self._image = image
        self._volume = volume
        self._records = records
        plan = volume.plan
        if not isinstance(plan, ObjectPlan):
            raise TypeError("the volume is not planned for objects")
        self._plan = plan

    def __call__(self, numbers: Sequence[int]) -> Task:
        return partial(self._find_all, numbers)

    def _find_all(self, numbers: Sequence[int], on_tile: Callable[[], None]) -> None:
        for number in numbers:
            self._find(number, on_tile)

    def _find(self, number: int, on_tile: Callable[[], None]) -> None:
        plan = self._plan
        box = plan.blocks(0).box(number)
        classes, grey = self._read(box, on_tile)
        settings = plan.settings
        solid = settings.solid and plan.goes_on
        pieces = find_pieces(classes, plan.values, solid=solid, separation=settings.separation)
        position = Position(plan.start(number), plan.extent)
        pairs, pixels = pairs_of([]), np.zeros(0, np.int64)
        if plan.goes_on and not solid:
            pairs, pixels = overlaps(classes, pieces)
        rows = sums_of(pieces, classes, position, grey)
        record = PieceRecord(rows, self._sides(number, pieces), pairs, pixels)
        self._records.write(number, record)
        shape = tuple(part.stop - part.start for part in box)
        self._volume.write(0, box, pieces.reshape(shape).astype(plan.label_type), None)

    def _read(
        self, box: Box, on_tile: Callable[[], None]
    ) -> tuple[NDArray[np.integer[Any]], NDArray[Any] | None]:
        """Read classes in their own type, as int64 would need eight times the memory."""
        planes = self._plan.source_planes(box)
        shape = (len(planes), *(part.stop - part.start for part in box[-2:]))
        whole = self._source.dtype if self._source.dtype.kind in "ui" else np.dtype(np.int64)
        classes, greys = np.empty(shape, whole), []
        for out, plane in zip(classes, planes, strict=True):
            on_tile()
            try:
                out[:] = read_labels(self._source, plane, *box[-2:])
            except TypeError as error:
                raise DataError(str(error)) from error
            if self._image is not None:
                greys.append(_grey(self._image.read(plane, *box[-2:])))
        return classes, np.stack(greys) if greys else None

    def _sides(self, number: int, pieces: Numbers) -> dict[Side, Numbers]:
        """Cut off the sides of a block that other blocks lie at."""
        place, counts = self._plan.blocks(0).place(number), self._plan.blocks(0).counts
        sides: dict[Side, Numbers] = {}
        for axis in range(-3 if self._plan.goes_on else -2, 0):
            if place[axis]:
                sides[axis, False] = pieces.take([0], axis).squeeze(axis)
            if place[axis] + 1 < counts[axis]:
                sides[axis, True] = pieces.take([-1], axis).squeeze(axis)
        return sides


def _number(
    pieces: Volume,
    objects: Volume,
    found: Joined,
    numbers: Sequence[int],
    on_tile: Callable[[], None],
) -> None:
    """Write the numbers of the objects in blocks."""
    level, box = objects.box(numbers[0])
    on_tile()
    made: Parts | None = None
    if level == 0:
        renamed = np.append(np.uint32(0), found.of(numbers[0]))
        made = renamed[pieces.read(0, box)], None
    objects.write_chain(numbers, made)


def _grey(channels: NDArray[Any]) -> NDArray[Any]:
    """Return the grey values of a plane; of several channels the mean."""
    mean: NDArray[Any] = channels.mean(axis=0, dtype=np.float32)
    return channels[0] if len(channels) == 1 else mean
