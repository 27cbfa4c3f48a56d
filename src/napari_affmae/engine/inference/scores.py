"""Confusion between classes, and what is computed from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import IGNORE_INDEX


@dataclass(frozen=True)
class Scores:
    """Agreement of predictions with labels over a whole set.

    Attributes
    ----------
    iou, dice : Mapping[str, float]
        By class name; NaN for a class that neither labels nor predictions have.
    mean_iou, mean_dice : float
        Mean over the classes that are not NaN; NaN if nothing was labelled.
    confusion : ndarray
        (classes, classes) int64: pixels of a labelled class (row) that were
        predicted as a class (column).
    """

    iou: Mapping[str, float]
    dice: Mapping[str, float]
    mean_iou: float
    mean_dice: float
    confusion: NDArray[np.int64]


class ConfusionMatrix:
    """Counts of labelled against predicted classes over any number of planes.

    Parameters
    ----------
    classes : int
        Number of classes.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, target: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Count the pixels of a plane or a part of one.

        Parameters
        ----------
        target : ndarray
            Class indices, of any shape; pixels of `IGNORE_INDEX` are not counted.
        predicted : ndarray
            Class indices, of the same shape.
        """
        labelled = target != IGNORE_INDEX
        classes = len(self.counts)
        cells = target[labelled].astype(np.int64) * classes + predicted[labelled]
        self.counts += np.bincount(cells, minlength=classes**2).reshape(self.counts.shape)

    def scores(self, names: Sequence[str]) -> Scores:
        """Compute the scores.

        Parameters
        ----------
        names : Sequence[str]
            Name of each class.

        Returns
        -------
        Scores
            Scores of all pixels counted so far.
        """
        both = self.counts.diagonal()
        sizes = self.counts.sum(0) + self.counts.sum(1)
        iou = _ratio(both, sizes - both)
        dice = _ratio(2 * both, sizes)
        return Scores(
            dict(zip(names, iou.tolist(), strict=True)),
            dict(zip(names, dice.tolist(), strict=True)),
            _mean(iou),
            _mean(dice),
            self.counts.copy(),
        )


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
