"""Where labels are, how many of each class, and which of them changed."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import IGNORE_INDEX, LabelClass
from napari_affmae.data.labels import LabelEncoder, LabelledPair, naming_pair, read_labels
from napari_affmae.data.sources.source import ImageSource

UNLABELLED = 255
_SQUARE = 32


@dataclass(frozen=True)
class Change:
    """A part of a plane whose labels changed; `indices` (rows, columns) uint8 are the new ones."""

    pair: int
    plane: int
    rows: slice
    columns: slice
    indices: NDArray[np.uint8]


@dataclass(frozen=True)
class _Plane:
    """Labels of a plane at one revision.

    `pixels` counts them by class, `anchors` (rows, columns, 2) has a labelled
    pixel of each square of `_SQUARE`, -1 where there is none. `indices` are kept
    where labels may change.
    """

    revision: int
    pixels: NDArray[np.int64]
    anchors: NDArray[np.int32]
    indices: NDArray[np.uint8] | None


class LabelSurvey:
    """Looks through the labels once, and again where they change.

    Parameters
    ----------
    pairs : sequence of LabelledPair
        Images and labels.
    planes : sequence of (int, int)
        Pairs and planes to look at.
    classes : sequence of LabelClass
        In the order of their indices.
    ignore_value : int or None
        Label value that means not labelled.

    Attributes
    ----------
    unknown_values : set of int
        Label values without a class that `refresh` found; their pixels are ignored.

    Raises
    ------
    DataError
        If a label has no class.
    UnreadablePairError
        If a file is damaged.
    ValueError
        If there are more classes than one byte tells apart.
    """

    def __init__(
        self,
        pairs: Sequence[LabelledPair],
        planes: Sequence[tuple[int, int]],
        classes: Sequence[LabelClass],
        ignore_value: int | None,
    ) -> None:
        if len(classes) > UNLABELLED:
            raise ValueError(f"there can be at most {UNLABELLED} classes, got {len(classes)}")
        self._pairs = pairs
        self._encoder = LabelEncoder(classes, ignore_value)
        self.unknown_values: set[int] = set()
        self._planes = {place: self._look(place) for place in planes}
        self._editable = [place for place in planes if self._labels(place).editable]

    @property
    def class_pixels(self) -> NDArray[np.int64]:
        """Labelled pixels of each class, (classes,) int64."""
        total: NDArray[np.int64] = np.sum([item.pixels for item in self._planes.values()], axis=0)
        return total

    def anchors(self, pair: int, plane: int) -> NDArray[np.int64]:
        """List labelled pixels of a plane, one from each square of 32 that has any: (n, 2)."""
        anchors = self._planes[pair, plane].anchors.reshape(-1, 2)
        return anchors[anchors[:, 0] >= 0].astype(np.int64)

    def read(self, pair: int, plane: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """Give class indices, `UNLABELLED` where there is none; several threads may ask.

        Those that may change are as they were at the last look.

        Returns
        -------
        ndarray, (rows, columns), uint8

        Raises
        ------
        UnreadableFileError
            If the file is damaged.
        """
        kept = self._planes[pair, plane].indices
        if kept is not None:
            return kept[rows, columns].copy()
        return self._encode((pair, plane), rows, columns)

    def refresh(self) -> list[Change]:
        """Look again at what changed since the last look.

        Raises
        ------
        UnreadablePairError
            If a file is damaged.
        """
        changes = []
        for place in self._editable:
            known, labels = self._planes[place], self._labels(place)
            # Asked first: what is painted while the plane is read is looked at again.
            revision = labels.revision(place[1])
            if revision == known.revision or known.indices is None:
                continue
            area = labels.changed_since(place[1], known.revision)
            if area is not None:
                changes.append(self._look_again(place, known, known.indices, area))
            self._planes[place] = replace(self._planes[place], revision=revision)
        return changes

    def _look_again(
        self,
        place: tuple[int, int],
        known: _Plane,
        all_indices: NDArray[np.uint8],
        area: tuple[slice, slice],
    ) -> Change:
        rows, columns = area
        with self._naming(place):
            values = read_labels(self._labels(place), place[1], rows, columns)
        classes, unknown = self._encoder.encode_known(values)
        self.unknown_values |= unknown
        indices = _as_bytes(classes)
        before = all_indices[rows, columns]
        pixels = known.pixels + self._count(indices) - self._count(before)
        all_indices[rows, columns] = indices
        squares = tuple(slice(part.start // _SQUARE, -(-part.stop // _SQUARE)) for part in area)
        around = tuple(slice(part.start * _SQUARE, part.stop * _SQUARE) for part in squares)
        known.anchors[squares] = _find_anchors(all_indices[around], around)
        self._planes[place] = replace(known, pixels=pixels)
        return Change(*place, rows, columns, indices)

    def _look(self, place: tuple[int, int]) -> _Plane:
        labels = self._labels(place)
        revision = labels.revision(place[1])
        whole = slice(0, labels.height), slice(0, labels.width)
        with self._naming(place):
            indices = self._encode(place, *whole)
        kept = indices if labels.editable else None
        return _Plane(revision, self._count(indices), _find_anchors(indices, whole), kept)

    def _encode(self, place: tuple[int, int], rows: slice, columns: slice) -> NDArray[np.uint8]:
        labels, plane = self._labels(place), place[1]
        name = f"plane {plane} of {labels.name}" if labels.n_planes > 1 else labels.name
        return _as_bytes(self._encoder.encode(read_labels(labels, plane, rows, columns), name))

    def _naming(self, place: tuple[int, int]) -> AbstractContextManager[None]:
        pair = self._pairs[place[0]]
        return naming_pair(pair.image.name, pair.labels.name)

    def _count(self, indices: NDArray[np.uint8]) -> NDArray[np.int64]:
        counts = np.bincount(indices.reshape(-1), minlength=UNLABELLED + 1)
        return counts[: self._encoder.n_classes]

    def _labels(self, place: tuple[int, int]) -> ImageSource:
        return self._pairs[place[0]].labels


def _find_anchors(indices: NDArray[np.uint8], area: tuple[slice, ...]) -> NDArray[np.int32]:
    """Choose a labelled pixel of each square, as near to its middle as there is one.

    Returns
    -------
    ndarray, (rows of squares, columns of squares, 2), int32
        Row and column in the plane; -1 where the square has none.
    """
    height, width = indices.shape
    padding = (-height % _SQUARE, -width % _SQUARE)
    labelled = np.pad(indices != UNLABELLED, [(0, extra) for extra in padding])
    rows, columns = (size // _SQUARE for size in labelled.shape)
    squares = labelled.reshape(rows, _SQUARE, columns, _SQUARE).swapaxes(1, 2)
    in_order = squares.reshape(rows, columns, -1)[..., _FROM_THE_MIDDLE]
    first = in_order.argmax(axis=-1)
    row, column = np.divmod(_FROM_THE_MIDDLE[first], _SQUARE)
    row += area[0].start + _SQUARE * np.arange(rows)[:, None]
    column += area[1].start + _SQUARE * np.arange(columns)
    anchors = np.stack([row, column], axis=-1).astype(np.int32)
    anchors[~in_order.any(axis=-1)] = -1
    return anchors


def _from_the_middle() -> NDArray[np.int64]:
    """Return the pixels of a square, numbered row by row, from its middle outwards."""
    offsets = np.arange(_SQUARE) - (_SQUARE - 1) / 2
    return np.argsort((offsets[:, None] ** 2 + offsets**2).reshape(-1), kind="stable")


_FROM_THE_MIDDLE = _from_the_middle()


def _as_bytes(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.where(indices == IGNORE_INDEX, UNLABELLED, indices).astype(np.uint8)
