"""What a segmentation fills and layers show: arrays in memory, or OME-Zarr folders that grow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import LabelClass

if TYPE_CHECKING:
    from napari_affmae.engine.results.volume import Volume

#: Results of more bytes than this are written to the disk.
LARGEST = 2 * 2**30


@dataclass(frozen=True)
class Result:
    """The class of each pixel and, on demand, the probability of each class.

    Attributes
    ----------
    shape : tuple of int
        Plane axes, rows and columns.
    classes : tuple of LabelClass
        The classes, whose values are written.
    labels : list of array
        The values, 0 where there is nothing yet; the full resolution, and smaller levels of
        what is on the disk.
    probabilities : list of list of array
        Likewise for each class, or empty.
    folder : Path or None
        The OME-Zarr folder of the labels; None if they are in memory.
    """

    shape: tuple[int, ...]
    classes: tuple[LabelClass, ...]
    labels: list[Any]
    probabilities: list[list[Any]]
    folder: Path | None = None

    @classmethod
    def in_memory(
        cls, shape: Sequence[int], classes: Sequence[LabelClass], *, probabilities: bool
    ) -> "Result":
        """Make arrays to write into."""
        shape = tuple(shape)
        dtype = np.min_scalar_type(max(item.value for item in classes))
        chances = [[np.zeros(shape, np.float32)] for _ in classes] if probabilities else []
        return cls(shape, tuple(classes), [np.zeros(shape, dtype)], chances)

    @classmethod
    def on_disk(cls, volume: "Volume", shape: Sequence[int]) -> "Result":
        """Show what there is of a volume, with the axes of the image."""
        from napari_affmae.engine.results.growing import levels_for_viewer

        lead, plan = tuple(shape[:-2]), volume.plan
        numbers = range(0 if plan.probabilities is None else len(plan.classes))
        return cls(
            tuple(shape),
            plan.classes,
            levels_for_viewer(volume, lead),
            [levels_for_viewer(volume, lead, number) for number in numbers],
            volume.place.labels,
        )

    @property
    def most_likely(self) -> float:
        """What stands for a probability of 1."""
        dtype = self.probabilities[0][0].dtype
        return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0

    @property
    def n_planes(self) -> int:
        """Number of planes."""
        return math.prod(self.shape[:-2])

    def write(
        self, plane: int, rows: slice, labels: NDArray[Any], probabilities: NDArray[Any] | None
    ) -> None:
        """Write finished rows of a plane into memory."""
        lead = self.shape[:-2]
        index = (*np.unravel_index(plane, lead), rows) if lead else (rows,)
        self.labels[0][index] = labels
        if probabilities is not None:
            for (target,), part in zip(self.probabilities, probabilities, strict=True):
                target[index] = part

    @property
    def is_large(self) -> bool:
        """Whether the labels are too large to be held in memory."""
        return math.prod(self.shape) * int(self.labels[0].dtype.itemsize) > LARGEST

    def loaded(self) -> NDArray[Any]:
        """Return the labels in memory."""
        return np.asarray(self.labels[0])


def bytes_needed(
    shape: Sequence[int], classes: Sequence[LabelClass], *, probabilities: bool
) -> int:
    """Return the memory that a result would take."""
    value = np.min_scalar_type(max(item.value for item in classes)).itemsize
    return math.prod(shape) * (value + (4 * len(classes) if probabilities else 0))
