"""Training crops without labels, each a pure function of seed and index."""

from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import AugmentationConfig
from napari_affmae.data.crops.augmentation import STRAIGHT, Augmentation
from napari_affmae.data.normalization.normalization import NormalizedSource
from napari_affmae.data.sources.source import shifted
from napari_affmae.errors import DataError, UnreadableFileError


def sample_rng(seed: int, index: int) -> np.random.Generator:
    """Make the generator of one sample: counter-based, so that no state needs storing."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, index]))


class PretrainCrops:
    """Random crops of unlabelled planes.

    Planes are drawn by area; those smaller than the crop are mirrored at their
    edges. A source that breaks is left out from then on, and `left_out` says so.

    Parameters
    ----------
    sources : sequence of NormalizedSource
        All with the same channels.
    crop : int
        Side of a crop, pixels.
    planes : sequence of sequence of int, optional
        For each source the planes to draw from; all by default.
    augmentation : AugmentationConfig, optional
        None for crops as they are.
    seed : int
        Of all random numbers.

    Attributes
    ----------
    left_out : dict of int to UnreadableFileError
        By the numbers of sources that broke, what happened.

    Raises
    ------
    DataError
        If there is no plane to draw from, or the sources' channels differ.
    ValueError
        If `planes` does not fit the sources.
    """

    def __init__(
        self,
        sources: Sequence[NormalizedSource],
        crop: int,
        *,
        planes: Sequence[Sequence[int]] | None = None,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
    ) -> None:
        self._sources = list(sources)
        self._crop = crop
        self._planes = chosen_planes(self._sources, planes)
        self._augmentation = None if augmentation is None else Augmentation(augmentation)
        self._seed = seed
        self.n_channels = common_channels(self._sources)
        self.left_out: dict[int, UnreadableFileError] = {}
        self._lock = Lock()
        self._areas = [
            len(chosen) * source.height * source.width
            for source, chosen in zip(self._sources, self._planes, strict=True)
        ]
        if not sum(self._areas):
            raise DataError("there is no image to draw crops from")
        self._cumulative = np.cumsum(self._areas) / sum(self._areas)

    def sample(self, index: int) -> NDArray[np.float32]:
        """Crop number `index`.

        Returns
        -------
        ndarray, (channels, crop, crop), float32

        Raises
        ------
        UnreadableFileError
            If every file is damaged; names the last.
        """
        rng = sample_rng(self._seed, index)
        while True:
            number = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
            try:
                return self._cut(number, rng)
            except UnreadableFileError as error:
                self._leave_out(number, error)

    def _leave_out(self, number: int, error: UnreadableFileError) -> None:
        """Draw no longer from a source; threads may find out about one at the same time."""
        with self._lock:
            self.left_out[number] = error
            self._areas[number] = 0
            if not sum(self._areas):
                raise error
            self._cumulative = np.cumsum(self._areas) / sum(self._areas)

    def _cut(self, number: int, rng: np.random.Generator) -> NDArray[np.float32]:
        source = self._sources[number]
        plane = int(rng.choice(self._planes[number]))
        top, left = (random_start(rng, size, self._crop) for size in (source.height, source.width))
        geometry = STRAIGHT
        if self._augmentation is not None:
            geometry = self._augmentation.draw_geometry(rng, self._crop)
        rows, columns = geometry.window(self._crop)
        window = read_mirrored(source, plane, shifted(rows, top), shifted(columns, left))
        image = geometry.bend(window, self._crop, nearest=False)
        return image if self._augmentation is None else self._augmentation.relight(image, rng)


def chosen_planes(
    sources: Sequence[NormalizedSource], planes: Sequence[Sequence[int]] | None
) -> list[NDArray[np.int64]]:
    """Planes of each source as arrays; all where `planes` is None.

    Raises
    ------
    ValueError
        If `planes` has not one entry a source, or names a plane that is not there.
    """
    if planes is None:
        return [np.arange(source.n_planes) for source in sources]
    if len(planes) != len(sources):
        raise ValueError(f"planes are given for {len(planes)} of {len(sources)} sources")
    chosen = [np.asarray(list(numbers), dtype=np.int64) for numbers in planes]
    for source, numbers in zip(sources, chosen, strict=True):
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < source.n_planes):
            raise ValueError(f"planes {numbers.tolist()} of a source with {source.n_planes}")
    return chosen


def common_channels(sources: Sequence[NormalizedSource]) -> int:
    """Count the channels that all sources have.

    Raises
    ------
    DataError
        If they differ, or there is no source.
    """
    counts = {source.n_channels: source.name for source in sources}
    if not counts:
        raise DataError("there is no image to draw crops from")
    if len(counts) > 1:
        listing = ", ".join(f"{name} has {count}" for count, name in sorted(counts.items()))
        raise DataError(f"images differ in channels: {listing}; choose channels, e.g. the first")
    return next(iter(counts))


def random_start(
    rng: np.random.Generator, size: int, crop: int, must_hold: slice | None = None
) -> int:
    """Draw where a crop starts on an axis; below 0 where the axis is shorter than the crop.

    With `must_hold`, the crop covers that part of the axis.
    """
    first, last = min(0, size - crop), max(0, size - crop)
    if must_hold is not None:
        first = max(first, min(must_hold.stop - crop, last))
        last = min(last, must_hold.start)
    return int(rng.integers(first, last + 1))


def read_mirrored(
    source: NormalizedSource, plane: int, rows: slice, columns: slice
) -> NDArray[np.float32]:
    """Read a window that may reach beyond the plane, or lie beyond it, which is mirrored there."""
    inner_rows, row_numbers = _mirrored(rows, source.height)
    inner_columns, column_numbers = _mirrored(columns, source.width)
    window = source.read(plane, inner_rows, inner_columns)
    if (inner_rows, inner_columns) == (rows, columns):
        return window
    return window[:, row_numbers[:, None], column_numbers]


def _mirrored(part: slice, size: int) -> tuple[slice, NDArray[np.int64]]:
    """Part of an axis that a slice sees between mirrors at both ends, and each pixel in it."""
    period = max(1, 2 * (size - 1))
    numbers = np.arange(part.start, part.stop) % period
    numbers = np.minimum(numbers, period - numbers)
    first = int(numbers.min())
    return slice(first, int(numbers.max()) + 1), numbers - first
