"""Labels and probabilities in OME-Zarr folders that grow block by block."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import Discriminator, TypeAdapter, ValidationError
from zarr.errors import ContainsArrayError

from napari_affmae.config import ORIGIN_NAMESPACE
from napari_affmae.data.sources.source import shifted
from napari_affmae.engine.results.ledger import Ledger
from napari_affmae.engine.results.object_plan import ObjectPlan
from napari_affmae.engine.results.ome_zarr import label_metadata, probability_metadata
from napari_affmae.engine.results.plan import BlockPlan, Box, Plan
from napari_affmae.engine.results.pyramid import average, most_frequent
from napari_affmae.engine.results.stored_array import StoredArray
from napari_affmae.engine.results.tree import factors_of
from napari_affmae.errors import UnreadableFileError
from napari_affmae.files import remove_entry, sync_folder, temporary_path, write_errors

# In the folder of the labels' first level: in a group, zarr takes it for a damaged member.
_LEDGER = Path("0", "done")

AnyPlan = Plan | ObjectPlan
#: Labels of a block, and probabilities where there are any.
Parts = tuple[NDArray[Any], NDArray[Any] | None]
_PLANS: TypeAdapter[AnyPlan] = TypeAdapter(Annotated[AnyPlan, Discriminator("kind")])


@dataclass(frozen=True)
class Place:
    """Where a volume is.

    Attributes
    ----------
    labels : Path
        Folder of the labels.
    probabilities : Path or None
        Folder of the probabilities; None if there are none.
    """

    labels: Path
    probabilities: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """All folders."""
        return [self.labels, *([] if self.probabilities is None else [self.probabilities])]


class Volume:
    """Arrays of results and the record of their blocks; several threads may use it.

    Parameters
    ----------
    place : Place
        Folders that `create` has made.

    Attributes
    ----------
    place : Place
        Its folders.
    plan : Plan or ObjectPlan
        What was written into them.
    ledger : Ledger
        Which of its blocks are complete.

    Raises
    ------
    UnreadableFileError
        If there is no volume, or it is damaged.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        plan = read_plan(place.labels)
        if plan is None:
            raise UnreadableFileError(f"{place.labels} is no result of this program")
        self.plan = plan
        self._labels = _open(place.labels, plan)
        self._probabilities: list[StoredArray] = []
        if place.probabilities is not None:
            self._probabilities = _open(place.probabilities, plan)
        self.ledger = _ledger(place.labels, plan)

    @classmethod
    def create(cls, place: Place, plan: BlockPlan, name: str) -> Self:
        """Make the folders of a volume; each appears complete, those of the labels last.

        Parameters
        ----------
        place : Place
            Where nothing is yet.
        plan : BlockPlan
            The arrays.
        name : str
            What the image is called.

        Raises
        ------
        UnwritableError
            If they cannot be made.
        """
        with write_errors(place.labels):
            place.labels.parent.mkdir(parents=True, exist_ok=True)
            if place.probabilities is not None and plan.probabilities is not None:
                dtype = np.dtype(plan.probabilities)
                metadata = probability_metadata(plan, name)
                _create(place.probabilities, plan, metadata, dtype, classes=True)
            metadata = label_metadata(plan, name)
            _create(place.labels, plan, metadata, plan.label_type, classes=False)
        return cls(place)

    def box(self, number: int) -> tuple[int, Box]:
        """Return the level of a block, and which part of it the block is."""
        for level in range(self.plan.levels):
            blocks = self.plan.blocks(level)
            if number < len(blocks):
                return level, blocks.box(number)
            number -= len(blocks)
        raise IndexError("the volume has fewer blocks")

    def write(
        self, level: int, box: Box, labels: NDArray[Any], probabilities: NDArray[Any] | None
    ) -> None:
        """Write a whole block, and wait until it is on the disk.

        Parameters
        ----------
        level : int
            Level of the pyramid, 0 for the full resolution.
        box : tuple of slice
            From `box`.
        labels : ndarray
            Of the shape of the box.
        probabilities : ndarray or None
            Likewise, with the classes as one more axis; in the type of the plan.

        Raises
        ------
        DiskFullError
            If there is no room.
        """
        self._labels[level].write(box, labels)
        if probabilities is not None:
            classes = slice(0, len(self.plan.classes))
            self._probabilities[level].write(self.plan.with_classes(box, classes), probabilities)

    def clear(self, number: int) -> None:
        """Remove what a kill has left of a block that is not complete."""
        for array, box in self._parts(number):
            array.clear(box)

    def mark(self, number: int) -> None:
        """Note that a block is complete, after it is on the disk.

        Raises
        ------
        UnwritableError
            If it cannot be noted.
        """
        for array, box in self._parts(number):
            array.tidy(box)
        self.ledger.mark(number)

    def _parts(self, number: int) -> Iterator[tuple[StoredArray, Box]]:
        level, box = self.box(number)
        yield self._labels[level], box
        if self._probabilities:
            classes = slice(0, len(self.plan.classes))
            yield self._probabilities[level], self.plan.with_classes(box, classes)

    def write_chain(self, numbers: Iterable[int], made: Parts | None = None) -> None:
        """Write a block, and those of smaller levels that are made from it alone.

        Parameters
        ----------
        numbers : iterable of int
            Blocks, each of which is made from the one before it alone.
        made : (ndarray, ndarray or None), optional
            Labels and probabilities of the first one, as in `write`; computed from what is
            stored of the level below it where they are not given.

        Raises
        ------
        DiskFullError
            If there is no room.
        """
        below: Parts | None = None
        for level, box in map(self.box, numbers):
            made = made or self._shrunk(level, box, below)
            self.write(level, box, *made)
            below, made = made, None

    def _shrunk(self, level: int, box: Box, known: Parts | None) -> Parts:
        """Compute a block of a level from the level below, which is read if it is not known."""
        plan = self.plan
        factors = factors_of(plan, level)
        channels = len(plan.classes)
        shape = tuple(part.stop - part.start for part in box)
        labels = np.empty(shape, plan.label_type)
        probabilities = None
        if self._probabilities:
            wanted = plan.with_classes(shape, channels)
            probabilities = np.empty(wanted, self._probabilities[level].dtype)
        for part in self._strips(box):
            inside = tuple(shifted(p, -b.start) for p, b in zip(part, box, strict=True))
            below = tuple(
                slice(p.start * factor, p.stop * factor)
                for p, factor in zip(part if known is None else inside, factors, strict=True)
            )
            stored = self._labels[level - 1].read if known is None else known[0].__getitem__
            labels[inside] = most_frequent(stored(below), factors)
            if probabilities is None:
                continue
            groups = plan.with_classes(factors, 1)
            stored = self._probabilities[level - 1].read
            if known is not None and known[1] is not None:
                stored = known[1].__getitem__
            for number in range(channels):
                one = slice(number, number + 1)
                found = stored(plan.with_classes(below, one))
                probabilities[plan.with_classes(inside, one)] = average(found, groups)
        return labels, probabilities

    def read(self, level: int, index: tuple[Any, ...], number: int | None = None) -> NDArray[Any]:
        """Read labels, or the probabilities of a class.

        Parameters
        ----------
        level : int
            Level of the pyramid.
        index : tuple of int and slice
            One for each axis of the labels.
        number : int, optional
            Which of the classes.
        """
        if number is None:
            return self._labels[level].read(index)
        return self._probabilities[level].read(self.plan.with_classes(index, number))

    def read_class(self, level: int, box: Box, number: int) -> NDArray[Any]:
        """Read a part of the probabilities of one class."""
        return self._probabilities[level].read(self.plan.with_classes(box, number))

    def label_plane(self, plane: int) -> NDArray[Any]:
        """Read the labels of a plane of the image."""
        return self.read(0, (*self.plan.position(plane), slice(None), slice(None)))

    def probability_planes(self, plane: int) -> Iterator[NDArray[Any]]:
        """Read the probabilities of a plane of the image, class by class."""
        for number in range(len(self.plan.classes)):
            index = (*self.plan.position(plane), slice(None), slice(None))
            yield self.read(0, index, number)

    def _strips(self, box: Box) -> Iterator[Box]:
        """Divide a box into pieces of one plane and the height of a chunk."""
        height = self.plan.chunk[-2]
        lead = [[slice(n, n + 1) for n in range(part.start, part.stop)] for part in box[:-2]]
        rows = [
            slice(start, min(start + height, box[-2].stop))
            for start in range(box[-2].start, box[-2].stop, height)
        ]
        yield from product(*lead, rows, [box[-1]])


def read_plan(folder: Path) -> AnyPlan | None:
    """Read what a folder of labels or probabilities was planned to be.

    Returns
    -------
    Plan, ObjectPlan or None
        None if this program has not made the folder.

    Raises
    ------
    UnreadableFileError
        If it is damaged, or a later version has made it.
    """
    try:
        found = zarr.open_group(folder, mode="r").attrs.get(ORIGIN_NAMESPACE)
    except (FileNotFoundError, ContainsArrayError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UnreadableFileError(f"cannot read {folder}: {error}") from error
    if found is None:
        return None
    try:
        return _PLANS.validate_python(found)
    except ValidationError as error:
        raise UnreadableFileError(
            f"{folder} was made by another version of this program, or is damaged"
        ) from error


def is_complete(folder: Path) -> bool:
    """Whether all blocks of a result are done; probabilities have their record with the labels.

    Raises
    ------
    UnreadableFileError
        If it is damaged.
    """
    plan = read_plan(folder)
    if plan is None:
        return False
    return not _is_labels(folder) or _ledger(folder, plan).is_complete


def completed_ns(folder: Path) -> int:
    """Return when the last block of a complete result was marked, in nanoseconds since 1970."""
    return (folder / _LEDGER).stat().st_mtime_ns


def progress_of(folder: Path) -> tuple[int, int] | None:
    """Count the complete blocks of labels, and all of them; None of what is no such result.

    Raises
    ------
    UnreadableFileError
        If it is damaged.
    """
    plan = read_plan(folder)
    if plan is None or not _is_labels(folder):
        return None
    return _ledger(folder, plan).done, plan.first(plan.levels)


def _is_labels(folder: Path) -> bool:
    ome: Mapping[str, Any] = zarr.open_group(folder, mode="r").attrs["ome"]  # type: ignore[assignment]
    return "image-label" in ome


def _ledger(folder: Path, plan: BlockPlan) -> Ledger:
    return Ledger(folder / _LEDGER, plan.fingerprint, plan.first(plan.levels))


def _open(folder: Path, plan: BlockPlan) -> list[StoredArray]:
    """Open all levels."""
    try:
        return [StoredArray(folder / str(level)) for level in range(plan.levels)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UnreadableFileError(f"{folder} is damaged: {error}") from error


def _create(
    folder: Path, plan: BlockPlan, metadata: dict[str, Any], dtype: np.dtype[Any], *, classes: bool
) -> None:
    """Make a group and its arrays under another name, and rename it."""
    new = temporary_path(folder)
    count = len(plan.classes)
    try:
        attributes = {"ome": metadata, ORIGIN_NAMESPACE: plan.model_dump(mode="json")}
        group = zarr.create_group(new, attributes=attributes)
        for level in range(plan.levels):
            blocks = plan.blocks(level)
            shape, chunk, shard, axes = blocks.shape, plan.chunk, blocks.block, tuple(plan.axes)
            if classes:
                shape, shard = plan.with_classes(shape, count), plan.with_classes(shard, count)
                chunk, axes = plan.with_classes(chunk, 1), plan.with_classes(axes, "c")
            StoredArray.create(
                group, str(level), dtype, shape=shape, chunk=chunk, shard=shard, axes=axes
            )
        if not classes:
            Ledger.create(new / _LEDGER, plan.fingerprint, plan.first(plan.levels))
        new.replace(folder)
        sync_folder(folder.parent)
    finally:
        if new.exists():
            remove_entry(new)
