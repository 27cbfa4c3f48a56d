"""Pixel values to network input: zero mean, unit variance, outliers clipped.

Statistics come from a sample of windows that depends on the source's shape
alone, so that the same data always give the same numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import NormalizationConfig
from napari_affmae.data.normalization.clahe import equalize, with_context
from napari_affmae.data.normalization.record import (
    NormalizationRecord,
    SourceStatistics,
)
from napari_affmae.data.sources.source import ImageSource, spread
from napari_affmae.errors import DataError

_WINDOW = 256
_PLANES = 24
_WINDOWS_PER_PLANE = 4
_FEW_PLANES_WINDOWS = 24


@dataclass(frozen=True)
class NormalizedSource:
    """A source read as float32 with zero mean and unit variance.

    Not finite values become the source's mean. A pixel of a window has the value
    that it has in the whole source, at the window's border too.
    """

    source: ImageSource
    config: NormalizationConfig
    statistics: SourceStatistics

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self.source.name

    @property
    def n_planes(self) -> int:
        """Number of planes."""
        return self.source.n_planes

    @property
    def height(self) -> int:
        """Rows of a plane."""
        return self.source.height

    @property
    def width(self) -> int:
        """Columns of a plane."""
        return self.source.width

    @property
    def n_channels(self) -> int:
        """Channels of a plane."""
        return self.source.n_channels

    def read(
        self, plane: int, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.float32]:
        """Read a part of one plane; a pixel's value does not depend on the part.

        Returns
        -------
        ndarray, (channels, rows, columns), float32

        Raises
        ------
        IndexError, UnreadableFileError
            As `ImageSource.read`.
        """
        place = self.source.locate(plane, rows, columns)
        values = _scaled(self.source.whole, *place, self.config, self.statistics)
        mean = _column(self.statistics.mean)
        std = _column(self.statistics.std)
        values -= mean
        values /= std
        return values


def normalize_sources(
    sources: Sequence[ImageSource],
    config: NormalizationConfig,
    stored: NormalizationRecord | None = None,
) -> list[NormalizedSource]:
    """Normalise each source by its own statistics, a window by those of the whole source.

    Parameters
    ----------
    sources : sequence of ImageSource
        The sources.
    config : NormalizationConfig
        How; a `stored` record's settings go before it.
    stored : NormalizationRecord, optional
        Of a model. Sources that it knows by fingerprint are normalised by its
        numbers, others are fitted by its settings.

    Raises
    ------
    DataError
        If a sample of a source holds no finite value.
    UnreadableFileError
        If a file is damaged.
    """
    known: Mapping[str, SourceStatistics] = {}
    if stored is not None:
        config, known = stored.config, stored.statistics
    return [
        NormalizedSource(
            source,
            config,
            (known.get(source.whole.fingerprint()) if known else None)
            or fit_statistics(source.whole, config),
        )
        for source in sources
    ]


def fit_statistics(source: ImageSource, config: NormalizationConfig) -> SourceStatistics:
    """Fit a source's statistics to sampled windows.

    Raises
    ------
    DataError
        If the windows hold no finite value in some channel.
    """
    windows = list(sample_windows(source))
    low, high, fill = [], [], []
    blocks = [source.read(*window).reshape(source.n_channels, -1) for window in windows]
    for channel, values in enumerate(np.concatenate(blocks, axis=1)):
        finite = values[np.isfinite(values)].astype(np.float64)
        if not finite.size:
            raise DataError(
                f"{source.name}: no sampled pixel of channel {channel} has a finite value; "
                "leave this image out"
            )
        bottom, top = np.percentile(finite, [config.low, config.high])
        if top <= bottom:
            bottom, top = finite.min(), finite.max()
        if top <= bottom:
            top = bottom + 1.0
        low.append(float(bottom))
        high.append(float(top))
        fill.append(float(finite.mean()))
    ones, zeros = (1.0,) * source.n_channels, (0.0,) * source.n_channels
    partial = SourceStatistics(low=low, high=high, fill=fill, mean=zeros, std=ones)
    scaled = np.concatenate(
        [
            _scaled(source, *window, config, partial).reshape(source.n_channels, -1)
            for window in windows
        ],
        axis=1,
        dtype=np.float64,
    )
    std = scaled.std(axis=1)
    return partial.model_copy(
        update={
            "mean": tuple(map(float, scaled.mean(axis=1))),
            "std": tuple(float(value) if value > 0 else 1.0 for value in std),
        }
    )


def sample_windows(source: ImageSource) -> Iterator[tuple[int, slice, slice]]:
    """Planes and windows that stand for a source: some millions of pixels at most."""
    planes = spread(source.n_planes, _PLANES)
    count = max(_WINDOWS_PER_PLANE, _FEW_PLANES_WINDOWS // len(planes))
    rng = np.random.Generator(np.random.Philox(0))
    for plane in planes:
        if source.height * source.width <= count * _WINDOW**2:
            yield plane, slice(0, source.height), slice(0, source.width)
            continue
        for _ in range(count):
            yield plane, _random_window(rng, source.height), _random_window(rng, source.width)


def _random_window(rng: np.random.Generator, size: int) -> slice:
    start = int(rng.integers(0, max(1, size - _WINDOW + 1)))
    return slice(start, min(size, start + _WINDOW))


def _scaled(
    source: ImageSource,
    plane: int,
    rows: slice,
    columns: slice,
    config: NormalizationConfig,
    statistics: SourceStatistics,
) -> NDArray[np.float32]:
    """Values clipped to 0..1, inverted and equalised as configured."""
    if config.clahe:
        area = with_context(rows, columns, (source.height, source.width))
        values = _clipped(source.read(plane, area.rows, area.columns), config, statistics)
        return np.stack([equalize(channel, area) for channel in values])
    return _clipped(source.read(plane, rows, columns), config, statistics)


def _clipped(
    raw: NDArray[Any], config: NormalizationConfig, statistics: SourceStatistics
) -> NDArray[np.float32]:
    values = raw.astype(np.float64)  # wide integers and small differences of large values
    low, high = _column(statistics.low), _column(statistics.high)
    if raw.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, _column(statistics.fill))
    scaled = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return np.float32(1) - scaled if config.invert else scaled


def _column(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values)[:, None, None]
