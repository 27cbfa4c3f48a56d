"""Simple methods that a trained network has to beat."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from napari_affmae.config import LabelClass, NormalizationConfig
from napari_affmae.data import (
    ImageSource,
    LabelEncoder,
    normalize_sources,
    read_labels,
)
from napari_affmae.engine.inference.scores import ConfusionMatrix, Scores

Pair = tuple[ImageSource, ImageSource]
PIXELS_PER_IMAGE = 20_000


class Baseline(Protocol):
    """A method that learns from labelled images and labels others."""

    name: str

    def fit(self, pairs: Sequence[Pair]) -> None:
        """Learn from images and their labels."""

    def predict(self, plane: NDArray[np.float32]) -> NDArray[np.int64]:
        """Label a normalised plane (channels, rows, columns) by class values."""


class PixelForest:
    """A random forest on intensity, edges and texture at several scales.

    What interactive pixel classifiers do, with scikit-image's features at
    scales of 1 to 16 px and a forest of 100 trees on 20,000 random pixels of
    each labelled image.

    Parameters
    ----------
    seed : int
        Of pixels and trees.
    """

    name = "random forest"

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.forest = RandomForestClassifier(
            n_estimators=100, min_samples_leaf=4, n_jobs=-1, random_state=seed
        )

    def fit(self, pairs: Sequence[Pair]) -> None:
        """Learn from random pixels of every image."""
        features, targets = [], []
        for image, labels in pairs:
            share = PIXELS_PER_IMAGE // image.n_planes + 1
            for index, plane in enumerate(planes_of(image)):
                values = read_labels(labels, index).ravel()
                chosen = self._rng.choice(values.size, min(share, values.size), replace=False)
                features.append(pixel_features(plane)[chosen])
                targets.append(values[chosen])
        self.forest.fit(np.concatenate(features), np.concatenate(targets))

    def predict(self, plane: NDArray[np.float32]) -> NDArray[np.int64]:
        """Label each pixel by itself."""
        predicted: NDArray[np.int64] = self.forest.predict(pixel_features(plane))
        return predicted.reshape(plane.shape[1:])


def score(baseline: Baseline, pairs: Sequence[Pair], classes: Sequence[LabelClass]) -> Scores:
    """Score a fitted method on labelled images, by one confusion matrix over all of them.

    Parameters
    ----------
    baseline : Baseline
        The method.
    pairs : sequence of (ImageSource, ImageSource)
        Images and labels.
    classes : sequence of LabelClass
        Of the labels.
    """
    encoder = LabelEncoder(classes, None)
    confusion = ConfusionMatrix(len(classes))
    for image, labels in pairs:
        for index, plane in enumerate(planes_of(image)):
            target = encoder.encode(read_labels(labels, index), labels.name)
            predicted = encoder.encode(baseline.predict(plane), "the prediction")
            confusion.add(target, predicted)
    return confusion.scores([item.name for item in classes])


def planes_of(image: ImageSource) -> list[NDArray[np.float32]]:
    """Read all planes of an image, normalised as for a network: (channels, rows, columns)."""
    (normalized,) = normalize_sources([image], NormalizationConfig())
    return [normalized.read(plane) for plane in range(image.n_planes)]


def pixel_features(plane: NDArray[np.float32]) -> NDArray[Any]:
    """Describe every pixel by its surroundings: (pixels, features)."""
    features = multiscale_basic_features(plane, sigma_min=1, sigma_max=16, channel_axis=0)
    return features.reshape(-1, features.shape[-1])
