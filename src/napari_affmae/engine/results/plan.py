"""How a volume of results is cut into blocks, and what each of its blocks comes from.

A plan is plain data: whoever has it knows every block by its number. The same image,
model and settings give the same plan, and so the same bytes.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from napari_affmae.config import LabelClass
from napari_affmae.data import ImageSource, SourceStatistics
from napari_affmae.data.sources.layout import Layout
from napari_affmae.engine.results.origin import Origin

Shape = tuple[int, ...]
Box = tuple[slice, ...]

# A shard is a file, and the block that one task computes and holds in memory. Tiles at its
# border are computed by the neighbours too, so it should be many tiles wide.
_SIDE = 8192
_BYTES = 2**28
# Stacks of many small planes take several planes a file, so that files do not get too many.
_FILES_ALONG_Z = 1000

ProbabilityType = Literal["uint8", "float16", "float32"]


@dataclass(frozen=True)
class Blocks:
    """The blocks of one level, numbered from 0, the last axis fastest.

    Attributes
    ----------
    shape, block : tuple of int
        Size of the array, and of a block.
    """

    shape: Shape
    block: Shape

    @property
    def counts(self) -> Shape:
        """Number of blocks along each axis."""
        return tuple(-(-size // side) for size, side in zip(self.shape, self.block, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def place(self, number: int) -> Shape:
        """Return the position of a block among the blocks."""
        return tuple(int(part) for part in np.unravel_index(number, self.counts))

    def box(self, number: int) -> Box:
        """Return the part of the array that is a block."""
        return tuple(
            slice(part * side, min(size, (part + 1) * side))
            for part, side, size in zip(self.place(number), self.block, self.shape, strict=True)
        )


@dataclass(frozen=True)
class BlockSizes:
    """How results are divided.

    Attributes
    ----------
    chunk : int
        Rows and columns of a chunk, which is what a viewer fetches at once.
    side : int or None
        About the rows and columns of a block, which one task computes, and which is a
        file; None goes by memory.
    depth : int or None
        Planes of a block; None takes more than one only of stacks of very many planes.
    """

    chunk: int = 512
    side: int | None = None
    depth: int | None = None


DEFAULT_SIZES = BlockSizes()


class BlockPlan(BaseModel):
    """Arrays of results that are divided into blocks.

    Attributes
    ----------
    classes : tuple of LabelClass
        The classes, whose values are written; none where values number objects.
    probabilities : str or None
        Type of the probabilities; None if there are none.
    axes : str
        Axes of the labels, such as ``"tzyx"``.
    shape, chunk, shard : tuple of int
        Of the labels.
    spacing : tuple of float or None
        Nanometres a pixel along each axis, where known.
    steps : tuple of tuple of int
        For each level, pixels of the image that one of its pixels stands for.
    planes : tuple of int
        Sizes of the image's own axes that count planes.
    order : tuple of int
        Those axes in the order that they have in `axes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["1"] = "1"
    classes: tuple[LabelClass, ...] = ()
    probabilities: ProbabilityType | None = None
    axes: str
    shape: Shape
    chunk: Shape
    shard: Shape
    spacing: tuple[float | None, ...]
    steps: tuple[Shape, ...]
    planes: Shape
    order: Shape

    @property
    def fingerprint(self) -> bytes:
        """Hash of the whole plan."""
        return hashlib.sha256(self.model_dump_json().encode()).digest()

    @property
    def label_type(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Type of the labels."""
        return np.min_scalar_type(max(item.value for item in self.classes))

    @property
    def channel_axis(self) -> int:
        """Where the classes are among the axes of the probabilities."""
        return self.axes.count("t")

    def with_classes(self, parts: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
        """Add to what stands for each axis of the labels what stands for the classes."""
        return (*parts[: self.channel_axis], item, *parts[self.channel_axis :])

    @property
    def levels(self) -> int:
        """Number of levels of the pyramid, the full resolution included."""
        return len(self.steps)

    def blocks(self, level: int) -> Blocks:
        """Return the blocks of a level of the labels."""
        sides = zip(self.shape, self.steps[level], strict=True)
        shape = tuple(-(-size // step) for size, step in sides)
        fitting = zip(shape, self.shard, self.chunk, strict=True)
        return Blocks(shape, tuple(min(shard, -(-n // c) * c) for n, shard, c in fitting))

    def first(self, level: int) -> int:
        """Return the number of a level's first block, if those of all levels are counted."""
        return sum(len(self.blocks(below)) for below in range(level))

    def source_planes(self, box: Box) -> list[int]:
        """Return the planes of the image that a block lies on, in the block's order."""
        numbers = np.arange(math.prod(self.planes)).reshape(self.planes).transpose(self.order)
        chosen: list[int] = numbers[box[:-2]].ravel().tolist()
        return chosen

    def position(self, plane: int) -> Shape:
        """Return where a plane of the image is, along the axes before rows and columns."""
        found = np.unravel_index(plane, self.planes) if self.planes else ()
        return tuple(int(found[axis]) for axis in self.order)

    def differences(self, other: "BlockPlan") -> list[str]:
        """Say in which respects another plan differs, in words for the user."""
        if self == other:
            return []
        if type(self) is not type(other):
            return ["another kind of result"]
        return list(self._differing(other)) or ["other settings"]

    def _differing(self, other: Any) -> Iterator[str]:
        """Name what differs and has a name that the user may know."""
        if (self.chunk, self.shard) != (other.chunk, other.shard):
            yield "other blocks"


class Plan(BlockPlan):
    """A segmentation, and all that decides about its content.

    Attributes
    ----------
    origin : Origin
        Image, model, tiles and precision.
    statistics : SourceStatistics
        The numbers that normalise the image.
    """

    kind: Literal["segmentation"] = "segmentation"
    origin: Origin
    statistics: SourceStatistics

    @classmethod
    def of(
        cls,
        source: ImageSource,
        origin: Origin,
        statistics: SourceStatistics,
        classes: tuple[LabelClass, ...],
        *,
        probabilities: ProbabilityType | None = None,
        pyramid: bool = True,
        sizes: BlockSizes = DEFAULT_SIZES,
    ) -> Self:
        """Plan the segmentation of an image.

        Parameters
        ----------
        source : ImageSource
            The image.
        origin, statistics, classes, probabilities
            See the attributes.
        pyramid : bool
            Whether there are smaller copies, for viewers.
        sizes : BlockSizes
            How the arrays are divided.
        """
        pixel = np.min_scalar_type(max(item.value for item in classes)).itemsize
        if probabilities is not None:
            pixel += len(classes) * np.dtype(probabilities).itemsize
        return cls(
            origin=origin,
            statistics=statistics,
            classes=classes,
            probabilities=probabilities,
            **divided(source, pixel, sizes, pyramid=pyramid),
        )

    def _differing(self, other: Any) -> Iterator[str]:
        yield from self.origin.differences(other.origin)
        if self.probabilities != other.probabilities:
            yield "another choice of probabilities"
        yield from super()._differing(other)


def divided(source: ImageSource, pixel: int, sizes: BlockSizes, *, pyramid: bool) -> dict[str, Any]:
    """Divide a result that is as large as an image.

    Parameters
    ----------
    source : ImageSource
        The image.
    pixel : int
        Bytes of all results at a pixel.
    sizes : BlockSizes
        How to divide.
    pyramid : bool
        Whether there are smaller copies.

    Returns
    -------
    dict
        Fields of a `BlockPlan`.
    """
    axes, planes, order = _plane_axes(source.layout)
    shape = (*(planes[i] for i in order), source.height, source.width)
    chunk, wanted = sizes.chunk, sizes.side or min(_SIDE, math.isqrt(_BYTES // pixel))
    sides = [_side(size, wanted, chunk) for size in shape[-2:]]
    depth = sizes.depth
    if depth is None:
        most = max(1, _BYTES // (math.prod(sides) * pixel))
        depth = min(most, -(-shape[-3] // _FILES_ALONG_Z)) if planes else 1
    lead = (1,) * len(planes)
    spacing = _spacing(source, axes)
    steps = list(_steps(shape, axes, spacing, 2 * chunk))
    return {
        "axes": axes,
        "shape": shape,
        "chunk": (*lead, *(min(chunk, part) for part in sides)),
        "shard": (*lead[:-1], *(depth,) * len(lead[-1:]), *sides),
        "spacing": spacing,
        "steps": tuple(steps if pyramid else steps[:1]),
        "planes": planes,
        "order": order,
    }


def _plane_axes(layout: Layout) -> tuple[str, Shape, Shape]:
    """Name the axes as OME-Zarr does, and order them: time, planes, rows, columns.

    More than two axes that count planes are merged into one.
    """
    letters, shape = layout.plane_axes.lower(), layout.plane_shape
    if len(shape) > 2:
        return "zyx", (math.prod(shape),), (0,)
    if len(set(letters)) < len(letters) or not set(letters) <= set("tz"):
        letters = "tz"[2 - len(shape) :]
    order = tuple(sorted(range(len(shape)), key=letters.__getitem__))
    return "".join(letters[i] for i in order) + "yx", shape, order


def _spacing(source: ImageSource, axes: str) -> tuple[float | None, ...]:
    rows, columns = source.pixel_size or (None, None)
    # The distance is that of the image's last axis that counts planes, which may be time.
    apart = source.plane_distance if source.layout.plane_axes[-1:].lower() != "t" else None
    known = {"t": None, "z": apart, "y": rows, "x": columns}
    return tuple(known[axis] for axis in axes)


def _side(size: int, wanted: int, chunk: int) -> int:
    """Divide an axis into parts of equal numbers of chunks, about as long as wanted."""
    if size <= chunk:
        return size
    parts = max(1, round(size / wanted))
    return -(-size // (parts * chunk)) * chunk


def _steps(
    shape: Shape, axes: str, spacing: tuple[float | None, ...], smallest: int
) -> Iterator[Shape]:
    """Halve rows and columns until they are few, and planes where they are as dense as rows."""
    steps = [1] * len(shape)
    yield tuple(steps)
    z, y, x = axes.find("z"), len(shape) - 2, len(shape) - 1
    while max(-(-shape[axis] // steps[axis]) for axis in (y, x)) > smallest:
        apart, rows = spacing[z], spacing[y]
        if z >= 0 and apart is not None and rows is not None:
            steps[z] *= 2 if apart * steps[z] <= rows * steps[y] else 1
        steps[y] *= 2
        steps[x] *= 2
        yield tuple(steps)
