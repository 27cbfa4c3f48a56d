"""Arrays that hold a segmentation while it is computed and shown."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_affmae.config import LabelClass
from napari_affmae.engine.store.run_names import new_run_path
from napari_affmae.files import write_errors

#: Results of more bytes than this are kept on disk.
LARGEST = 2 * 2**30
_CHUNK = 512


class Canvas:
    """The class of each pixel and, on demand, the probability of each class.

    Up to `LARGEST` bytes lie in memory. Larger results are zarr arrays in a new
    folder, which takes space only for the rows that were written. It is not deleted.

    Parameters
    ----------
    shape : sequence of int
        Plane axes, rows and columns.
    classes : sequence of LabelClass
        The classes, whose values are written.
    probabilities : bool
        Whether to keep probabilities.
    folder : Path
        Parent of the folder that large results are written to.
    name : str
        Becomes part of that folder's name.

    Attributes
    ----------
    labels : array, `shape`, uint8 or uint16
        0 where nothing has been written yet.
    probabilities : list of array, `shape`, float32
        One array for each class, or empty.
    folder : Path or None
        Folder of the arrays; None if they are in memory.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: Sequence[LabelClass],
        *,
        probabilities: bool,
        folder: Path,
        name: str,
    ) -> None:
        self.shape = tuple(shape)
        self.classes = tuple(classes)
        dtype = np.min_scalar_type(max(item.value for item in classes))
        layers = len(self.classes) if probabilities else 0
        pixels = int(np.prod(self.shape, dtype=np.int64))
        self.nbytes = pixels * (dtype.itemsize + 4 * layers)
        self.folder = None
        if self.nbytes > LARGEST:
            self.folder = new_run_path(folder, "segmentation", name)
        self.labels = self._array("labels", dtype)
        self.probabilities = [
            self._array(f"probability {number}", np.dtype(np.float32)) for number in range(layers)
        ]

    def _array(self, name: str, dtype: np.dtype[Any]) -> Any:
        if self.folder is None:
            return np.zeros(self.shape, dtype)
        chunks = (1,) * (len(self.shape) - 2) + tuple(min(_CHUNK, n) for n in self.shape[-2:])
        return zarr.create_array(
            store=self.folder / f"{name}.zarr", shape=self.shape, chunks=chunks, dtype=dtype
        )

    @property
    def n_planes(self) -> int:
        """Number of planes."""
        return int(np.prod(self.shape[:-2], dtype=np.int64))

    def write(
        self, plane: int, rows: slice, labels: NDArray[Any], probabilities: NDArray[Any] | None
    ) -> None:
        """Write finished rows of a plane.

        Raises
        ------
        DiskFullError
            If the disk has no room for them.
        UnwritableError
            If they cannot be written for another reason.
        """
        index = (*np.unravel_index(plane, self.shape[:-2]), rows) if self.shape[:-2] else (rows,)
        # Writing to memory cannot fail.
        with nullcontext() if self.folder is None else write_errors(self.folder):
            self.labels[index] = labels
            if probabilities is not None:
                for target, part in zip(self.probabilities, probabilities, strict=True):
                    target[index] = part
