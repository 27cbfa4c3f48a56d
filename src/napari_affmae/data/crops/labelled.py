"""Training crops with labels, each a pure function of seed and index."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import IGNORE_INDEX, AugmentationConfig, LabelClass
from napari_affmae.data.crops.augmentation import STRAIGHT, Augmentation, Geometry
from napari_affmae.data.crops.unlabelled import (
    chosen_planes,
    common_channels,
    random_start,
    read_mirrored,
    sample_rng,
)
from napari_affmae.data.labels import (
    LabelEncoder,
    LabelledPair,
    naming_pair,
    read_labels,
)
from napari_affmae.data.sources.source import ImageSource, shifted
from napari_affmae.errors import DataError

_BLOCK = 32


@dataclass(frozen=True)
class _LabelledPlane:
    """Labels of a plane at one revision.

    `pixels` counts them by class, `blocks` marks where they are, in squares of `_BLOCK`.
    """

    pair: int
    plane: int
    revision: int
    pixels: NDArray[np.int64]
    blocks: NDArray[np.bool_]


@dataclass(frozen=True)
class _Survey:
    """Planes with labelled pixels, and the shares up to each in which they are drawn."""

    planes: Sequence[_LabelledPlane]
    cumulative: NDArray[np.float64]


class LabelledCrops:
    """Random crops of images and their labels.

    Every crop holds labelled pixels: with scribbles, it is drawn around one of
    them. Beyond a plane's edges the image is mirrored and the labels ignored.
    Labels that change are followed by `refresh`; `sample` may be called from
    other threads meanwhile.

    Parameters
    ----------
    pairs : sequence of LabelledPair
        All images with the same channels.
    crop : int
        Side of a crop, pixels.
    classes : sequence of LabelClass
        In the order of their indices.
    ignore_value : int or None
        Label value that means not labelled.
    planes : sequence of sequence of int, optional
        For each pair the planes to draw from; all by default.
    augmentation : AugmentationConfig, optional
        None for crops as they are.
    seed : int
        Of all random numbers.

    Attributes
    ----------
    unknown_values : set of int
        Label values without a class that were painted since the start; their
        pixels are ignored.

    Raises
    ------
    DataError
        If a label has no class, nothing is labelled, or channels differ.
    ValueError
        If `planes` or `classes` do not fit.
    """

    def __init__(
        self,
        pairs: Sequence[LabelledPair],
        crop: int,
        classes: Sequence[LabelClass],
        ignore_value: int | None,
        *,
        planes: Sequence[Sequence[int]] | None = None,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
    ) -> None:
        self._pairs = list(pairs)
        self._crop = crop
        self._encoder = LabelEncoder(classes, ignore_value)
        self._augmentation = None if augmentation is None else Augmentation(augmentation)
        self._seed = seed
        images = [pair.image for pair in self._pairs]
        self.n_channels = common_channels(images)
        self.unknown_values: set[int] = set()
        chosen = [
            (number, plane)
            for number, numbers in enumerate(chosen_planes(images, planes))
            for plane in numbers.tolist()
        ]
        self._first_revisions = {
            (number, plane): self._pairs[number].labels.revision(plane) for number, plane in chosen
        }
        self._known = {place: self._look(*place) for place in chosen}
        self._editable = [place for place in chosen if self._pairs[place[0]].labels.editable]
        survey = self._draw_from()
        if survey is None:
            raise DataError("no pixel is labelled: paint some, or check the ignored value")
        self._survey = survey

    @property
    def class_pixels(self) -> NDArray[np.int64]:
        """Labelled pixels of each class on the chosen planes: (classes,) int64."""
        total: NDArray[np.int64] = np.sum([item.pixels for item in self._survey.planes], axis=0)
        return total

    def refresh(self) -> bool:
        """Look again at planes whose labels have changed.

        Where no pixel is labelled any more, the crops stay where they were.

        Returns
        -------
        bool
            Whether there were any.

        Raises
        ------
        UnreadablePairError
            If a file is damaged.
        """
        changed = [
            place
            for place in self._editable
            if self._pairs[place[0]].labels.revision(place[1]) != self._known[place].revision
        ]
        for place in changed:
            self._known[place] = self._look(*place)
        # Replaced as a whole: a thread that makes a sample has the old or the new one.
        self._survey = (self._draw_from() if changed else None) or self._survey
        return bool(changed)

    def _look(self, number: int, plane: int) -> _LabelledPlane:
        """Count a plane's classes and note where labels are."""
        pair = self._pairs[number]
        # Asked first: what is painted while the plane is read is looked at again.
        revision = pair.labels.revision(plane)
        with naming_pair(pair.image.name, pair.labels.name):
            values = read_labels(pair.labels, plane)
        indices = self._encode(number, plane, values)
        labelled = indices != IGNORE_INDEX
        pixels = np.bincount(indices[labelled], minlength=self._encoder.n_classes)
        return _LabelledPlane(number, plane, revision, pixels, _any_in_blocks(labelled))

    def _draw_from(self) -> _Survey | None:
        """Weigh the planes that hold labels; None where there are none."""
        planes = [known for known in self._known.values() if known.pixels.any()]
        weights = np.array([labelled.blocks.sum() for labelled in planes], dtype=float)
        return _Survey(planes, np.cumsum(weights) / weights.sum()) if planes else None

    def _encode(self, number: int, plane: int, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class indices; values without a class are an error unless they were painted since."""
        labels = self._pairs[number].labels
        if labels.revision(plane) == self._first_revisions[number, plane]:
            return self._encoder.encode(values, _place(labels, plane))
        indices, unknown = self._encoder.encode_known(values)
        self.unknown_values = self.unknown_values | unknown  # a new set: threads read the old
        return indices

    def sample(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Crop number `index`.

        Returns
        -------
        image : ndarray, (channels, crop, crop), float32
        target : ndarray, (crop, crop), int64
            Class indices, `IGNORE_INDEX` where not labelled.

        Raises
        ------
        DataError
            If a label without a class appeared since the start on a plane that
            counts no revisions.
        UnreadablePairError
            If a file is damaged.
        """
        rng = sample_rng(self._seed, index)
        survey = self._survey
        number = int(np.searchsorted(survey.cumulative, rng.random(), side="right"))
        labelled = survey.planes[number]
        pair = self._pairs[labelled.pair]
        with naming_pair(pair.image.name, pair.labels.name):
            return self._crop_of(labelled, rng)

    def _crop_of(
        self, labelled: _LabelledPlane, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        top, left = self._draw_corner(rng, labelled)
        geometry = STRAIGHT
        if self._augmentation is not None:
            geometry = self._augmentation.draw_geometry(rng, self._crop)
        target = self._read_target(labelled, top, left, geometry)
        if geometry.coordinates is not None and (target == IGNORE_INDEX).all():
            # Bent so that the few labels fell out: a crop without labels teaches nothing.
            geometry = Geometry(None, geometry.turns, geometry.flip)
            target = self._read_target(labelled, top, left, geometry)
        rows, columns = geometry.window(self._crop)
        window = read_mirrored(
            self._pairs[labelled.pair].image,
            labelled.plane,
            shifted(rows, top),
            shifted(columns, left),
        )
        image = geometry.bend(window, self._crop, nearest=False)
        if self._augmentation is not None:
            image = self._augmentation.relight(image, rng)
        return image, target

    def _draw_corner(self, rng: np.random.Generator, labelled: _LabelledPlane) -> tuple[int, int]:
        """Draw the corner of a crop, around a labelled block unless all are."""
        image = self._pairs[labelled.pair].image
        sizes = (image.height, image.width)
        holds: tuple[slice | None, slice | None] = (None, None)
        if not labelled.blocks.all():
            row, column = rng.choice(np.argwhere(labelled.blocks))
            holds = (_block_slice(int(row), sizes[0]), _block_slice(int(column), sizes[1]))
        top, left = (
            random_start(rng, size, self._crop, hold)
            for size, hold in zip(sizes, holds, strict=True)
        )
        return top, left

    def _read_target(
        self, labelled: _LabelledPlane, top: int, left: int, geometry: Geometry
    ) -> NDArray[np.int64]:
        labels = self._pairs[labelled.pair].labels
        rows, columns = geometry.window(self._crop)
        inner_rows, row_padding = _clipped(shifted(rows, top), labels.height)
        inner_columns, column_padding = _clipped(shifted(columns, left), labels.width)
        values = read_labels(labels, labelled.plane, inner_rows, inner_columns)
        indices = self._encode(labelled.pair, labelled.plane, values)
        window = np.pad(indices, (row_padding, column_padding), constant_values=IGNORE_INDEX)
        target: NDArray[np.int64] = geometry.bend(window[None], self._crop, nearest=True)[0]
        return target


def _place(labels: ImageSource, plane: int) -> str:
    return f"plane {plane} of {labels.name}" if labels.n_planes > 1 else labels.name


def _clipped(part: slice, size: int) -> tuple[slice, tuple[int, int]]:
    """Part of a slice within an axis, perhaps none, and how many pixels lie before and after."""
    start, stop = (min(max(0, end), size) for end in (part.start, part.stop))
    before = min(max(0, -part.start), part.stop - part.start)
    return slice(start, stop), (before, part.stop - part.start - before - (stop - start))


def _block_slice(number: int, size: int) -> slice:
    return slice(number * _BLOCK, min(size, (number + 1) * _BLOCK))


def _any_in_blocks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each square of `_BLOCK` holds a true pixel."""
    for axis in (0, 1):
        edges = np.arange(0, mask.shape[axis], _BLOCK)
        mask = np.logical_or.reduceat(mask, edges, axis=axis)
    return mask
