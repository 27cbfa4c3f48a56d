"""One picture that shows what a demo run made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from numpy.typing import NDArray

from napari_affmae.config import LabelClass

_DPI = 90


@dataclass(frozen=True)
class Example:
    """A plane with its label and what the network says: (height, width) each."""

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
        A line above it all.
    examples : Sequence[Example]
        A row each.
    classes : Sequence[LabelClass]
        For colours and their legend.
    reconstruction : Mapping[str, ndarray]
        Named pictures (count, height, width) of one pretraining preview.
    pretraining, finetuning : Sequence[Mapping[str, Any]]
        Lines of the runs' metrics.
    """
    figure = Figure(figsize=(10, 3.2 * len(examples) + 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    heights = [1.0] * len(examples) + [0.8, 0.8]
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    for row, example in enumerate(examples):
        _draw_example(figure, grid[row], example, classes, titled=row == 0)
    _draw_reconstruction(figure, grid[len(examples)], reconstruction)
    axes = [figure.add_subplot(part) for part in grid[len(examples) + 1].subgridspec(1, 2)]
    _draw_curves(axes[0], "pretraining: reconstruction loss", pretraining)
    _draw_curves(axes[1], "fine-tuning: segmentation loss", finetuning)
    figure.savefig(path, dpi=_DPI)


def _draw_example(
    figure: Figure,
    place: SubplotSpec,
    example: Example,
    classes: Sequence[LabelClass],
    *,
    titled: bool,
) -> None:
    colors = ListedColormap([known.color for known in classes])
    values = [known.value for known in classes]
    pictures = (
        ("image", example.image),
        ("label", example.label),
        ("prediction", example.prediction),
    )
    axes = [figure.add_subplot(part) for part in place.subgridspec(1, 3)]
    for axis, (name, picture) in zip(axes, pictures, strict=True):
        if name == "image":
            _show(axis, picture)
        else:
            index = np.searchsorted(values, picture)
            axis.imshow(index, cmap=colors, vmin=-0.5, vmax=len(classes) - 0.5)
            axis.set_axis_off()
        if titled:
            axis.set_title(name)
    if titled:
        for known in classes:
            axes[0].plot([], [], "s", color=known.color, label=known.name)
        axes[0].legend(loc="lower left", fontsize="small")


def _draw_reconstruction(
    figure: Figure, place: SubplotSpec, pictures: Mapping[str, NDArray[np.float32]]
) -> None:
    parts = place.subgridspec(1, len(pictures))
    for part, (name, picture) in zip(parts, pictures.items(), strict=True):
        axis = figure.add_subplot(part)
        _show(axis, picture[0])
        axis.set_title(f"pretraining: {name}", fontsize="medium")


def _draw_curves(axis: Axes, title: str, metrics: Sequence[Mapping[str, Any]]) -> None:
    for event, style in (("step", "-"), ("validation", "o-")):
        lines = [line for line in metrics if line["event"] == event]
        steps = [line["step"] for line in lines]
        label = "training" if event == "step" else event
        axis.plot(steps, [line["loss"] for line in lines], style, markersize=3, label=label)
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel("step")
    axis.set_yscale("log")
    axis.legend(fontsize="small")


def _show(axis: Axes, picture: NDArray[Any]) -> None:
    axis.imshow(picture, cmap="gray")
    axis.set_axis_off()
