"""Pixel values to network input: zero mean, unit variance, outliers clipped.

Statistics come from a sample of windows that depends on the source's shape
alone, so that the same data always give the same numbers. Borders and other places
of one value do not count.
"""

from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import NormalizationConfig
from napari_affmae.data.normalization.clahe import equalize, with_context
from napari_affmae.data.normalization.empty_places import telling_values
from napari_affmae.data.normalization.record import (
    NormalizationRecord,
    SourceStatistics,
)
from napari_affmae.data.sources.source import ImageSource, spread
from napari_affmae.errors import DataError

_WINDOW = 256
_STORED_WINDOWS = 64
_PLANES = 24
_WINDOWS_PER_PLANE = 4
_FEW_PLANES_WINDOWS = 24


class NormalizedSource:
    """A source read as float32 with zero mean and unit variance.

    Not finite values become the source's mean. A pixel of a window has the value
    that it has in the whole source, at the window's border too.

    Parameters
    ----------
    source : ImageSource
        The image.
    config : NormalizationConfig
        How it is normalised.
    known : mapping of str to SourceStatistics, optional
        Statistics by fingerprint. A source that is not among them is fitted when
        its statistics are first needed, which reads a sample of it.
    """

    def __init__(
        self,
        source: ImageSource,
        config: NormalizationConfig,
        known: Mapping[str, SourceStatistics] | None = None,
    ) -> None:
        self.source = source
        self.config = config
        self._known = known or {}
        self._statistics: SourceStatistics | None = None
        self._fitting = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # A lock does not travel to other processes; what was fitted does.
        known = self._known
        if self._statistics is not None:
            known = {self.source.whole.fingerprint(): self._statistics}
        return type(self), (self.source, self.config, known)

    @property
    def statistics(self) -> SourceStatistics:
        """The numbers that normalise the source; several threads may ask.

        Raises
        ------
        DataError
            If a sample of the source holds no finite value.
        UnreadableFileError
            If the file is damaged.
        """
        with self._fitting:
            if self._statistics is None:
                whole = self.source.whole
                # Read in any case: a record needs it later, when the source may have broken.
                found = self._known.get(whole.fingerprint())
                self._statistics = found or fit_statistics(whole, self.config)
            return self._statistics

    @property
    def is_fitted(self) -> bool:
        """Whether the statistics are there already."""
        return self._statistics is not None

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
        IndexError, DataError, UnreadableFileError
            As `ImageSource.read` and `statistics`.
        """
        return _standardised(self.read_scaled(plane, rows, columns), self.statistics)

    def read_scaled(
        self, plane: int, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.float32]:
        """Read a part of one plane from 0 to 1, before mean and deviation are taken out."""
        place = self.source.locate(plane, rows, columns)
        return _scaled(self.source.whole, *place, self.config, self.statistics)

    def table(self) -> NDArray[np.float32] | None:
        """Return what `read` makes of every stored value, to be looked up elsewhere.

        Returns
        -------
        ndarray, (channels, 256 or 65536), float32, or None
            At the number that the bits of a value are without a sign. None where pixels
            are no integers of 8 or 16 bits, or depend on what is around them.
        """
        if not self.is_pointwise:
            return None
        dtype = self.source.dtype
        unsigned = np.dtype(f"u{dtype.itemsize}")
        stored = np.arange(np.iinfo(unsigned).max + 1, dtype=unsigned).view(dtype)
        every = np.broadcast_to(stored, (self.n_channels, 1, len(stored)))
        scaled = _clipped(every, self.config, self.statistics)
        return _standardised(scaled, self.statistics)[:, 0]

    @property
    def is_pointwise(self) -> bool:
        """Whether `raw_limits` normalise each stored value by itself, and exactly enough.

        Equalisation looks at a pixel's surroundings; wide integers and floats need
        more digits than float32 has.
        """
        return (
            not self.config.clahe
            and self.source.dtype.kind in "ui"
            and (self.source.dtype.itemsize <= 2)
        )

    def raw_limits(self) -> NDArray[np.float32]:
        """Return what normalises stored values: ``clip(v, low, high) * scale + offset``.

        Returns
        -------
        ndarray, (channels, 4), float32
            Low, high, scale and offset of each channel.
        """
        numbers = self.statistics
        low, high = np.array(numbers.low), np.array(numbers.high)
        mean, std = np.array(numbers.mean), np.array(numbers.std)
        span = high - low
        sign = -1.0 if self.config.invert else 1.0
        start = (high if self.config.invert else low) / span * -sign
        columns = (low, high, sign / (span * std), (start - mean) / std)
        return np.stack(columns, axis=1).astype(np.float32)

    def scaled_limits(self) -> NDArray[np.float32]:
        """Return what normalises the values of `read_scaled`; see `raw_limits`."""
        mean, std = np.array(self.statistics.mean), np.array(self.statistics.std)
        columns = (np.zeros_like(mean), np.ones_like(mean), 1 / std, -mean / std)
        return np.stack(columns, axis=1).astype(np.float32)


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
    normalized = normalize_when_read(sources, config, stored)
    for source in normalized:
        source.statistics  # noqa: B018 - fits it now, or raises
    return normalized


def normalize_when_read(
    sources: Sequence[ImageSource],
    config: NormalizationConfig,
    stored: NormalizationRecord | None = None,
) -> list[NormalizedSource]:
    """Do as `normalize_sources`, but read nothing yet: each is fitted when it is first needed."""
    if stored is None:
        return [NormalizedSource(source, config) for source in sources]
    return [NormalizedSource(source, stored.config, stored.statistics) for source in sources]


def fit_statistics(source: ImageSource, config: NormalizationConfig) -> SourceStatistics:
    """Fit a source's statistics to sampled windows, without their empty places.

    Raises
    ------
    DataError
        If the windows hold no finite value in some channel.
    """
    windows = list(sample_windows(source))
    blocks = [source.read(*window) for window in windows]
    if all(block.min() == block.max() for block in blocks):  # the sample missed what is sparse
        windows = _stored_windows(source) or windows
        blocks = [source.read(*window) for window in windows]
    telling = [
        telling_values([block[channel] for block in blocks]) for channel in range(source.n_channels)
    ]
    low, high, fill = [], [], []
    for channel, chosen in enumerate(telling):
        values = _joined(blocks, channel)[chosen].astype(np.float64)
        if not values.size:
            raise DataError(
                f"{source.name}: no sampled pixel of channel {channel} has a finite value; "
                "leave this image out"
            )
        bottom, top = np.percentile(values, [config.low, config.high])
        if top <= bottom:
            bottom, top = values.min(), values.max()
        if top <= bottom:
            top = bottom + 1.0
        low.append(float(bottom))
        high.append(float(top))
        fill.append(float(values.clip(bottom, top).mean()))
    ones, zeros = (1.0,) * source.n_channels, (0.0,) * source.n_channels
    partial = SourceStatistics(low=low, high=high, fill=fill, mean=zeros, std=ones)
    scaled = [_scaled(source, *window, config, partial) for window in windows]
    mean, std = [], []
    for channel, chosen in enumerate(telling):
        values = _joined(scaled, channel)[chosen].astype(np.float64)
        mean.append(float(values.mean()))
        std.append(float(values.std()) or 1.0)
    return partial.model_copy(update={"mean": tuple(mean), "std": tuple(std)})


def _joined(blocks: Sequence[NDArray[Any]], channel: int) -> NDArray[Any]:
    return np.concatenate([block[channel].ravel() for block in blocks])


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


def _stored_windows(source: ImageSource) -> list[tuple[int, slice, slice]]:
    """Windows in the middle of what is stored of a file that stores only what is not empty."""
    return [
        (plane, _middle(rows), _middle(columns))
        for plane, rows, columns in source.stored_parts(_STORED_WINDOWS) or ()
    ]


def _middle(part: slice) -> slice:
    start = max(part.start, (part.start + part.stop - _WINDOW) // 2)
    return slice(start, min(part.stop, start + _WINDOW))


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


def _standardised(scaled: NDArray[np.float32], statistics: SourceStatistics) -> NDArray[np.float32]:
    """Take mean and deviation out of values from 0 to 1, in place."""
    scaled -= _column(statistics.mean)
    scaled /= _column(statistics.std)
    return scaled


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
