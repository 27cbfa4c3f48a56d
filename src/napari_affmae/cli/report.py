"""A picture that shows the results of a demo run."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from napari_affmae.config import LabelClass
from napari_affmae.files import replace_bytes

_DPI = 90


@dataclass(frozen=True)
class Example:
    """A plane, its labels and the prediction, each (height, width)."""

    image: NDArray[Any]
    label: NDArray[np.integer]
    prediction: NDArray[np.integer]


def draw_report(
    path: Path,
    *,
    title: str,
    examples: Sequence[Example],
    classes: Sequence[LabelClass],
    reconstruction: Mapping[str, NDArray[np.float32]],
    pretraining: Sequence[Mapping[str, Any]],
    finetuning: Sequence[Mapping[str, Any]],
) -> None:
    """Draw examples, a reconstruction and the learning curves as a PNG.

    Parameters
    ----------
    path : Path
        The PNG.
    title : str
        Line at the top.
    examples : Sequence[Example]
        Examples, one in each row.
    classes : Sequence[LabelClass]
        For colours and their legend.
    reconstruction : Mapping[str, ndarray]
        Named pictures (count, height, width) of one pretraining preview.
    pretraining, finetuning : Sequence[Mapping[str, Any]]
        Lines of the runs' metrics.
    """
    heights = [3.3] * len(examples) + [2.6, 2.8]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    rows = [figure.add_subfigure(grid[row]) for row in range(len(heights))]
    for row, example in zip(rows, examples, strict=False):
        _draw_example(row, example, classes)
    marks = [Line2D([], [], marker="s", ls="", color=c.color, label=c.name) for c in classes]
    rows[len(examples) - 1].legend(handles=marks, loc="outside lower center", ncols=len(classes))
    _draw_reconstruction(rows[-2], reconstruction)
    left, right = rows[-1].subplots(1, 2)
    _draw_curves(left, "pretraining: reconstruction loss", pretraining)
    _draw_curves(right, "fine-tuning: segmentation loss", finetuning)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI)
    replace_bytes(path, picture.getvalue())


def _draw_example(figure: SubFigure, example: Example, classes: Sequence[LabelClass]) -> None:
    colors = ListedColormap([known.color for known in classes])
    values = [known.value for known in classes]
    image, label, prediction = figure.subplots(1, 3)
    _show(image, "image", example.image)
    for axis, name, picture in (
        (label, "label", example.label),
        (prediction, "prediction", example.prediction),
    ):
        index = np.searchsorted(values, picture)
        axis.imshow(index, cmap=colors, vmin=-0.5, vmax=len(classes) - 0.5)
        axis.set_title(name)
        axis.set_axis_off()


def _draw_reconstruction(figure: SubFigure, pictures: Mapping[str, NDArray[np.float32]]) -> None:
    axes = figure.subplots(1, len(pictures))
    for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
        _show(axis, f"pretraining: {name}", picture[0])


def _draw_curves(axis: Axes, title: str, metrics: Sequence[Mapping[str, Any]]) -> None:
    for event, style in (("step", "-"), ("validation", "o-")):
        lines = [line for line in metrics if line["event"] == event]
        steps = [line["step"] for line in lines]
        label = "training" if event == "step" else event
        axis.plot(steps, [line["loss"] for line in lines], style, markersize=3, label=label)
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel("step")
    axis.legend(fontsize="small")


def _show(axis: Axes, title: str, picture: NDArray[Any]) -> None:
    axis.imshow(picture, cmap="gray")
    axis.set_title(title)
    axis.set_axis_off()
