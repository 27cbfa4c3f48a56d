"""Images, labels and predictions side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from baselines import planes_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from napari_affmae.config import LabelClass
from napari_affmae.data import ImageSource

SIDE = 2.6  # inches of one panel


@dataclass(frozen=True)
class Row:
    """A plane, its labels, and what each method says: (rows, columns) each."""

    image: NDArray[Any]
    label: NDArray[np.integer]
    predictions: Mapping[str, NDArray[np.integer]]


def first_planes(pairs: Sequence[tuple[ImageSource, ImageSource]]) -> list[NDArray[np.float32]]:
    """Read the first plane of each image, normalised: (channels, rows, columns)."""
    return [planes_of(image)[0] for image, _ in pairs]


def draw_rows(path: Path, rows: Sequence[Row], classes: Sequence[LabelClass]) -> None:
    """Draw a PNG with a row for each plane.

    Parameters
    ----------
    path : Path
        The PNG.
    rows : sequence of Row
        With the same methods.
    classes : sequence of LabelClass
        For colours and their legend.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["image", "label", *rows[0].predictions]
    figure = Figure(figsize=(SIDE * len(names), SIDE * len(rows) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    colors = ListedColormap([item.color for item in classes])
    values = sorted(item.value for item in classes)
    grid = figure.subplots(len(rows), len(names), squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        axes[0].imshow(row.image, cmap="gray", vmin=-2, vmax=2)
        for axis, labels in zip(axes[1:], (row.label, *row.predictions.values()), strict=True):
            index = np.searchsorted(values, labels)
            axis.imshow(index, cmap=colors, vmin=0, vmax=len(values) - 1, interpolation="nearest")
    for axis in grid.flat:
        axis.set_axis_off()
    for axis, name in zip(grid[0], names, strict=True):
        axis.set_title(name)
    figure.legend(
        handles=[Patch(color=item.color, label=item.name) for item in classes],
        loc="outside lower center",
        ncols=len(classes),
    )
    figure.savefig(path, dpi=100)
