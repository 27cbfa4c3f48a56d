"""What a network needs to normalise images as in its training; stored with every model."""

from collections.abc import Sequence
from itertools import islice
from typing import Protocol, Self

from napari_affmae.config import NormalizationConfig, Settings
from napari_affmae.data.sources.source import ImageSource

# The header of a model file must not grow with the images that it was trained on.
_MOST_STATISTICS = 64


class SourceStatistics(Settings):
    """Numbers that normalise one source; one entry a channel.

    `low` and `high` bound the values that count, in the source's units; `fill`
    is the mean within these bounds, which replaces NaN and infinite values.
    `mean` and `std` are taken after scaling to 0..1, inversion and CLAHE.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    fill: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _Normalized(Protocol):
    """A source with its statistics, such as `NormalizedSource`."""

    @property
    def source(self) -> ImageSource: ...

    @property
    def config(self) -> NormalizationConfig: ...

    @property
    def statistics(self) -> SourceStatistics: ...

    @property
    def is_fitted(self) -> bool: ...


class NormalizationRecord(Settings):
    """What a model needs to normalise as in training: stored with it.

    `statistics` are by the sources' fingerprints, a window's by that of the whole. Of
    very many sources only some are kept; the others are fitted anew, by the same rule
    to the same pixels.
    """

    config: NormalizationConfig
    statistics: dict[str, SourceStatistics]

    @classmethod
    def of(cls, sources: Sequence[_Normalized]) -> Self:
        """Record of sources that were normalised alike; of the first that were needed, statistics.

        Raises
        ------
        ValueError
            If there are none, or their settings differ.
        """
        configs = {source.config for source in sources}
        if len(configs) != 1:
            raise ValueError(f"a record holds one normalisation, got {len(configs)}")
        fitted = islice((item for item in sources if item.is_fitted), _MOST_STATISTICS)
        statistics = {item.source.whole.fingerprint(): item.statistics for item in fitted}
        return cls(config=configs.pop(), statistics=statistics)
