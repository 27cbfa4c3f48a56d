"""The normalisation of a model, in the steps that bioimage.io knows.

The model's own way is: scale each image by two of its percentiles, clip, perhaps invert,
then take out the mean and the deviation of what results. The first two steps are written
as they are. The others are in the exported network, with fixed numbers: the averages over
the training images, which differ little from image to image after the scaling.
bioimage.io's library measures mean and deviation before the other steps, and BiaPy keeps
only one of several steps that normalise.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import NormalizationConfig
from napari_affmae.data import NormalizedSource, SourceStatistics, open_source
from napari_affmae.engine.export.example import Example
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.errors import DataError, ExportError


@dataclass(frozen=True)
class Scaling:
    """How an exported model's input is normalised.

    Attributes
    ----------
    config : NormalizationConfig
        Percentiles, and whether grey values are inverted.
    mean, std : tuple of float
        Of each channel, after scaling to 0..1.
    """

    config: NormalizationConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, metadata: ModelMetadata) -> "Scaling":
        """Take the scaling of a model.

        Parameters
        ----------
        metadata : ModelMetadata
            Metadata of the model.

        Raises
        ------
        ExportError
            If it uses CLAHE, or knows nothing of its training images.
        """
        record = metadata.normalization
        if record.config.clahe:
            raise ExportError(
                "this model equalises contrast by CLAHE, which bioimage.io has no step for, and "
                "without it predictions would be wrong; train one without CLAHE to export it"
            )
        statistics = list(record.statistics.values())
        if not statistics:
            raise ExportError(
                "this model does not know the mean and deviation of its training images, which a "
                "package must hold; fine-tune it for a few steps, and export the result"
            )
        mean, std = (
            tuple(np.mean([getattr(item, name) for item in statistics], axis=0).tolist())
            for name in ("mean", "std")
        )
        return cls(record.config, mean, std)

    def steps(self) -> list[dict[str, Any]]:
        """Describe the scaling as the preprocessing of a bioimage.io model."""
        percentiles = {"min_percentile": self.config.low, "max_percentile": self.config.high}
        return [
            {"id": "scale_range", "kwargs": {"axes": ["y", "x"], **percentiles}},
            {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
        ]

    def arguments(self) -> dict[str, list[float]]:
        """Return what the exported network takes out; see `PortableSegmenter`."""
        if not self.config.invert:
            return {"mean": list(self.mean), "std": list(self.std)}
        # An inverted value minus the mean is the complement of the mean minus the value.
        return {"mean": [1 - value for value in self.mean], "std": [-value for value in self.std]}

    def apply(self, example: Example) -> NDArray[np.float32]:
        """Scale an example as `steps` do, but by this program's own code.

        Returns
        -------
        ndarray, (channels, tile, tile), float32
            From 0 to 1.

        Raises
        ------
        DataError
            If it has no contrast.
        """
        levels = [self.config.low, self.config.high]
        low, high = np.percentile(example.pixels.astype(np.float64), levels, axis=(1, 2))
        if (low >= high).any():
            raise DataError(
                f"the example, {example.origin}, has nearly the same value everywhere; "
                "choose another image for it"
            )
        source = open_source(example.pixels, axes="CYX")
        channels = len(self.mean)
        numbers = SourceStatistics(
            low=tuple(low),
            high=tuple(high),
            fill=tuple(low),
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
        )
        config = self.config.model_copy(update={"invert": False})
        return NormalizedSource(source, config, {source.fingerprint(): numbers}).read(0)
