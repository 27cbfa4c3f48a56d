"""Quick training: a light head learns painted strokes on features that are computed once."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import LabelClass, QuickConfig
from napari_affmae.data import ImageSource, NormalizedSource
from napari_affmae.engine.events import Event, RunStarted


@dataclass(frozen=True)
class View:
    """A rectangle of one plane, with its strokes.

    Attributes
    ----------
    source : NormalizedSource
        The image, from `QuickTraining.normalize`.
    plane : int
        Which of its planes.
    rows, columns : slice
        The rectangle; step 1, clipped to the plane as numpy does.
    labels : ndarray or None
        (rows, columns) int64 label values of the rectangle, the ignored value
        where nothing is painted; None where there are no strokes.
    """

    source: NormalizedSource
    plane: int
    rows: slice
    columns: slice
    labels: NDArray[np.int64] | None = None


class QuickTraining:
    """Interactive training: paint, update, look, paint more.

    Attributes
    ----------
    started : RunStarted
        Device, precision and backend, in words.
    notes : tuple of str
        What the user should hear of, such as that no pretrained network was given.
    """

    started: RunStarted
    notes: tuple[str, ...]

    def __init__(
        self,
        pretrained: Path | None,
        sources: Sequence[ImageSource],
        classes: Sequence[LabelClass],
        config: QuickConfig,
        *,
        ignore_value: int | None = 0,
    ) -> None:
        raise NotImplementedError

    def normalize(self, source: ImageSource) -> NormalizedSource:
        """Normalise an image: as the pretrained network knows it, else fitted and kept."""
        raise NotImplementedError

    def update(self, strokes: Sequence[View], show: View) -> Generator[Event, None, None]:
        """Train the head on all strokes and predict what is shown.

        Yields `TileDone` while features are computed, `StepDone` while the head
        trains, and at last `ViewPredicted`.
        """
        raise NotImplementedError

    def save(self, path: Path) -> Path:
        """Write a model file that `segment`, `evaluate` and `finetune` take."""
        raise NotImplementedError
