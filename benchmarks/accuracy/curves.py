"""Pictures of a campaign: score against labels, and against GPU minutes."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from accuracy.report import Result, by_method, split, total_gpu_seconds
from napari_affmae.engine.store.starting_weights import starting_weights

SIDE = 4.0  # inches of one panel

Draw = Callable[[Axes, Sequence[Result]], None]


def draw_curves(results: Iterable[Result], folder: Path) -> list[Path]:
    """Draw ``labels.png`` and ``minutes.png``; variants of the recipe are left out.

    Parameters
    ----------
    results : iterable of Mapping
        Lines of ``results.jsonl``.
    folder : Path
        Of the pictures, which are replaced where they exist.

    Returns
    -------
    list of Path
        The pictures.
    """
    pretrained, segmented = split(results)
    shown = [result for result in segmented if not result["job"]["variant"]]
    known = {result["name"]: result for result in pretrained}
    minutes = [
        {**result, "minutes": total / 60}
        for result in shown
        # A forest takes no GPU.
        if (total := total_gpu_seconds(result, known))
    ]
    return [
        _draw(folder / "labels.png", shown, "labelled planes", _against_labels),
        _draw(folder / "minutes.png", minutes, "own GPU minutes, with pretraining", _against_time),
    ]


def _draw(path: Path, shown: Sequence[Result], label: str, draw: Draw) -> Path:
    sets = sorted({result["job"]["dataset"] for result in shown}) or [""]
    figure = Figure(figsize=(SIDE * len(sets), SIDE + 1.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, name in zip(panels, sets, strict=True):
        axes.set(title=name, xlabel=label, xscale="log")
        draw(axes, [result for result in shown if result["job"]["dataset"] == name])
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("mean IoU")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _against_labels(axes: Axes, results: Sequence[Result]) -> None:
    """Draw a line for each method, over its budgets."""
    for method, found in by_method(results).items():
        points: dict[float, list[float]] = {}
        for result in found:
            points.setdefault(result["planes"], []).append(result["mean_iou"])
        _line(axes, sorted(points.items()), method)
    planes = sorted({result["planes"] for result in results})
    axes.set_xticks(planes, [f"{number:.0f}" for number in planes])
    axes.set_xticks([], minor=True)


def _against_time(axes: Axes, results: Sequence[Result]) -> None:
    """Draw a line for each network and budget, over its methods by their time.

    Weights that come with the program, whose time others have spent, are on lines of their own.
    """
    lines: dict[str, list[Result]] = {}
    for result in results:
        job = result["job"]
        start = f" from {job['start']}" if job["start"] in starting_weights() else ""
        lines.setdefault(f"{job['network']}{start}, {job['budget']}", []).append(result)
    for name, of_line in lines.items():
        points = [
            (
                statistics.fmean(result["minutes"] for result in found),
                [result["mean_iou"] for result in found],
            )
            for found in by_method(of_line).values()
        ]
        _line(axes, sorted(points), name)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _line(axes: Axes, points: Sequence[tuple[float, list[float]]], label: str) -> None:
    places = [place for place, _ in points]
    means = [statistics.fmean(scores) for _, scores in points]
    errors = [statistics.stdev(scores) if len(scores) > 1 else 0.0 for _, scores in points]
    axes.errorbar(places, means, errors, marker="o", capsize=3, label=label)
