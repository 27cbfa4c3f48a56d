"""How a volume of numbered objects is cut into blocks, and what decides about its content."""

import math
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np

from napari_affmae.config import ObjectsConfig
from napari_affmae.data import ImageSource
from napari_affmae.engine.results.plan import BlockPlan, Blocks, BlockSizes, Shape, divided

# Pixels of a block: the search for objects takes about 10 bytes for each of them.
_PIXELS = 2**25
# Objects that go through planes need blocks that are thick: where blocks meet, more is stored.
_SOLID_SIDE, _FLAT_SIDE = 1024, 4096
_TYPE: np.dtype[np.unsignedinteger[Any]] = np.dtype(np.uint32)
_WORDS = (
    ("labels", "another label image"),
    ("grey", "another image for grey values"),
    ("values", "other classes"),
    ("settings", "other settings"),
    ("spacing", "another size of pixels"),
)


class ObjectPlan(BlockPlan):
    """Numbered objects, and all that decides about them.

    Attributes
    ----------
    labels : str
        Fingerprint of the label image.
    grey : str or None
        Fingerprint of the image whose grey values are measured.
    values : tuple of int
        Classes whose objects are wanted, ascending.
    settings : ObjectsConfig
        How objects are found.
    """

    kind: Literal["objects"] = "objects"
    labels: str
    grey: str | None
    values: tuple[int, ...]
    settings: ObjectsConfig

    @classmethod
    def of(
        cls,
        source: ImageSource,
        labels: str,
        values: tuple[int, ...],
        settings: ObjectsConfig,
        *,
        grey: str | None = None,
        pyramid: bool = True,
        sizes: BlockSizes | None = None,
    ) -> Self:
        """Plan the objects of a label image.

        Parameters
        ----------
        source : ImageSource
            The label image.
        labels, values, settings, grey
            See the attributes.
        pyramid : bool
            Whether there are smaller copies, for viewers.
        sizes : BlockSizes, optional
            How arrays are divided. Where objects are separated, blocks are whole planes, or
            the whole stack, whatever is given.
        """
        whole = max(source.height, source.width)
        if settings.separation:
            depth = max(source.plane_shape, default=1) if settings.solid else 1
            sizes = BlockSizes(side=whole, depth=depth)
        elif sizes is None:
            side = min(whole, _SOLID_SIDE if settings.three_d else _FLAT_SIDE)
            area = min(source.height, side) * min(source.width, side)
            sizes = BlockSizes(side=side, depth=max(1, _PIXELS // area))
        return cls(
            labels=labels,
            grey=grey,
            values=tuple(sorted(set(values))),
            settings=settings,
            **divided(source, _TYPE.itemsize, sizes, pyramid=pyramid),
        )

    @property
    def label_type(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Type of the numbers."""
        return _TYPE

    @property
    def block_pixels(self) -> int:
        """Pixels of the largest block."""
        return math.prod(map(min, self.shape, self.shard))

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """Times, planes, rows and columns."""
        times, planes, rows, columns = (1,) * (4 - len(self.shape)) + self.shape
        return times, planes, rows, columns

    def start(self, number: int) -> tuple[int, int, int, int]:
        """Return the first time, plane, row and column of a block."""
        first = tuple(part.start for part in self.blocks(0).box(number))
        time, plane, row, column = (0,) * (4 - len(first)) + first
        return time, plane, row, column

    def neighbours(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield the blocks behind a block that objects may go on in, and along which axis.

        Axes are -3 (planes), -2 (rows) and -1 (columns).
        """
        blocks: Blocks = self.blocks(0)
        place: Shape = blocks.place(number)
        for axis in range(-3 if self.goes_on else -2, 0):
            if place[axis] + 1 < blocks.counts[axis]:
                behind = list(place)
                behind[axis] += 1
                yield axis, int(np.ravel_multi_index(behind, blocks.counts))

    @property
    def goes_on(self) -> bool:
        """Whether objects go on from plane to plane, and there are such planes."""
        return self.settings.three_d and "z" in self.axes

    def _differing(self, other: Any) -> Iterator[str]:
        for name, words in _WORDS:
            if getattr(self, name) != getattr(other, name):
                yield words
        yield from super()._differing(other)
