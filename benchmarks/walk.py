"""From an opened stack to a table of objects, in a real window, as a user goes.

Opens images, opens the fine-tuning dock, paints strokes that lie on the true classes with the
mouse, waits for predictions, saves the model, segments the stack with it, looks for objects and
opens their table. Prints for each stage how many actions of the user it takes, how many
seconds, and how late the window was; and the overlap with the labels. Needs a screen; without
one: ``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/walk.py ...``.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import napari
import numpy as np
import torch
from environment import RESULTS, WIDTH, describe, write_csv
from lag import TARGETS, LagMeter, Lags, live
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from napari_affmae.data import open_source
from napari_affmae.engine.inference.scores import ConfusionMatrix
from napari_affmae.widgets.layers.napari_private import canvas_size
from napari_affmae.widgets.layers.view import camera_of
from napari_affmae.widgets.parts import preferences
from napari_affmae.widgets.running import worker

_PATIENCE = 600  # seconds
_BRUSH = 5
_LONGEST, _POINTS = 40, 8  # pixels of a stroke, and the places at which the mouse reports itself
_PER_POINT, _BETWEEN = 0.04, 0.5  # seconds: a hand that paints without haste
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, -1), (-1, 0), (-1, -1), (-1, 1))


class Walk:
    """What was done so far: rows of a table, a stage each."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.lags = Lags()
        self._meter = LagMeter()
        self._actions = self._strokes = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a part of the walk."""
        self._meter.take()
        self._actions = self._strokes = 0
        start = time.perf_counter()
        yield
        live(lambda: True, 1)  # what the last action has left to do counts here
        lags = self._meter.take()
        self.lags.extend(lags)
        row = {
            "stage": name,
            "actions": self._actions,
            "strokes": self._strokes,
            "seconds": round(time.perf_counter() - start, 1),
        }
        self.rows.append(row | lags.described())

    def act(self, action: Callable[[], Any]) -> Any:
        """Do what a user does with one click, and let the window take it in."""
        self._actions += 1
        result = action()
        rest(0.3)
        return result

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait for something."""
        if not live(done, _PATIENCE):
            raise TimeoutError(f"{what} did not come within {_PATIENCE} s")

    def stroke(self, viewer: napari.Viewer, layer: Any, path: np.ndarray) -> None:
        """Paint along a path (rows, columns of the layer's plane in view) with the mouse."""
        self._strokes += 1
        step = viewer.dims.current_step[: layer.ndim - 2]
        places = [on_canvas(viewer, layer.data_to_world((*step, *place))) for place in path]
        canvas = viewer.window._qt_viewer.canvas.native  # noqa: SLF001 - the mouse is over it
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        move, press = QEvent.Type.MouseMove, QEvent.Type.MouseButtonPress
        send(canvas, move, places[0], none, none)
        send(canvas, press, places[0], left, left)
        for place in places:
            send(canvas, move, place, none, left)
            rest(_PER_POINT)
        send(canvas, QEvent.Type.MouseButtonRelease, places[-1], left, none)
        rest(_BETWEEN)


def rest(seconds: float) -> None:
    """Let the window live for a while."""
    live(lambda: False, seconds)


def send(
    canvas: Any, kind: QEvent.Type, place: QPointF, button: Qt.MouseButton, held: Qt.MouseButton
) -> None:
    """Send an event of the mouse."""
    there = QPointF(canvas.mapToGlobal(place.toPoint()))
    modifiers = Qt.KeyboardModifier.NoModifier
    QApplication.sendEvent(canvas, QMouseEvent(kind, place, there, button, held, modifiers))


def on_canvas(viewer: napari.Viewer, world: Any) -> QPointF:
    """Return the place on the canvas of a place of the world."""
    camera, size = camera_of(viewer), np.asarray(canvas_size(viewer))
    offset = (np.asarray(world)[-2:] - np.asarray(camera.center)[-2:]) * camera.zoom
    row, column = size / 2 + offset
    return QPointF(float(column), float(row))


def main() -> None:
    """Walk, print and save."""
    arguments = parse_arguments()
    folder = Path(tempfile.mkdtemp())
    # The user's stay as they are.
    preferences.preferences_file = lambda: folder / "preferences.json"
    preferences.remember(runs=folder / "runs")
    if arguments.busy:
        worker._NICENESS = 0  # noqa: SLF001 - else other programs would leave them no time
    truth = read_truth(arguments.labels, arguments.join)
    load = os.getloadavg()[0]
    viewer = napari.Viewer()
    viewer.window.resize(*arguments.window)
    images = files_of(arguments.images)
    viewer.open([str(path) for path in images], stack=len(images) > 1, plugin="napari")
    rest(3)
    walk = Walk()
    dock, overlaps = paint(walk, viewer, truth, arguments)
    overlaps |= segment(walk, viewer, dock, truth)
    painting = walk.rows[: len(walk.rows) - _AFTER]
    total = {
        "stage": "to a useful prediction; lags of all",
        "actions": sum(row["actions"] for row in painting),
        "strokes": sum(row["strokes"] for row in painting),
        "seconds": round(sum(row["seconds"] for row in painting), 1),
    }
    rows = [*walk.rows, {**total, **walk.lags.described()}]
    show(rows)
    for name, overlap in overlaps.items():
        print(f"IoU, {name}: {overlap:.3f}")
    print(f"aims: {TARGETS}, 10 actions and 90 s to a useful prediction")
    print(f"load before and after: {load:.2f}, {os.getloadavg()[0]:.2f}")
    write_csv(RESULTS / "walk.csv", [row | describe(torch.device("cpu")) for row in rows])
    viewer.close()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="a stack, or a folder of planes of one size")
    parser.add_argument("labels", type=Path, help="its true classes, likewise")
    parser.add_argument("--model", type=Path, help="to start from; else the dock's own choice")
    parser.add_argument("--join", type=int, nargs="+", default=(), help="values that are one class")
    parser.add_argument("--strokes", type=int, default=12, help="of all classes together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=int, nargs=2, default=(1500, 960), help="its size, pixels")
    parser.add_argument(
        "--busy", action="store_true", help="give workers the window's priority, beside other work"
    )
    return parser.parse_args()


_AFTER = 4  # stages that come after the useful prediction


def paint(
    walk: Walk, viewer: napari.Viewer, truth: np.ndarray, arguments: argparse.Namespace
) -> tuple[Any, dict[str, float]]:
    """Paint until there is a useful prediction; return the dock, and how good it is."""
    plane = viewer.dims.current_step[0] if truth.ndim > 2 else 0
    shown = truth.reshape(-1, *truth.shape[-2:])[plane]
    values = np.unique(shown)
    rng = np.random.default_rng(arguments.seed)
    paths = [paths_on(shown == value, arguments.strokes // len(values), rng) for value in values]
    overlaps = {}
    with walk.stage("open the dock"):
        _, dock = walk.act(
            lambda: viewer.window.add_plugin_dock_widget("napari-affmae", "2. Fine-tune")
        )
        walk.wait(lambda: not dock.start_from.is_listing, "the list of models")
    if arguments.model:
        dock.start_from.choose(arguments.model)
        walk.wait(lambda: dock.start_from.path() == arguments.model, "the model")
    print(f"starts from {dock.start_from.combo.currentText()}")
    with walk.stage("layer, classes, brush"):
        if not dock.pairs.pairs():
            walk.act(dock.pairs.new_button.click)
        ((_, labels),) = dock.pairs.pairs()
        while len(dock.classes.classes()) < len(values):
            walk.act(dock.classes.add_button.click)
        if labels.brush_size > _BRUSH:
            walk.act(lambda: setattr(labels, "brush_size", _BRUSH))
        walk.act(dock.quick.predict_button.click)
    predicted: list[float] = []
    dock.quick.predicted.connect(lambda: predicted.append(time.perf_counter()))

    def strokes(part: slice) -> None:
        predicted.clear()
        # The class of the last strokes is still chosen: it comes first.
        order = range(len(values)) if part.start is None else reversed(range(len(values)))
        for number in order:
            if dock.classes.chosen_value() != number + 1:
                walk.act(lambda number=number: dock.classes.choose(number + 1))
            for path in paths[number][part]:
                walk.stroke(viewer, labels, path)
        walk.wait(lambda: bool(predicted) and not dock.quick.is_busy, "a prediction")

    half = len(paths[0]) // 2
    for name, part in (("first strokes", slice(half)), ("more strokes", slice(half, None))):
        with walk.stage(f"{name}, prediction"):
            strokes(part)
        _, view, prediction, _ = dock.quick._layers.shown()  # noqa: SLF001 - what the user sees
        seen = shown[view.rows, view.columns]
        unpainted = np.asarray(labels.data).reshape(-1, *shown.shape)[plane]
        rest_of = unpainted[view.rows, view.columns] == 0
        overlaps[f"view after {name}"] = overlap(prediction[rest_of], seen[rest_of], values)
    return dock, overlaps


def segment(walk: Walk, viewer: napari.Viewer, dock: Any, truth: np.ndarray) -> dict[str, float]:
    """Save, segment the stack, and look for objects; return how good the segmentation is."""
    with walk.stage("save"):
        walk.act(dock.quick.save_button.click)
        walk.wait(lambda: not dock.segment_button.isHidden(), "the model")
    with walk.stage("segment the stack"):
        walk.act(dock.segment_button.click)
        _, segmenting = viewer.window.add_plugin_dock_widget("napari-affmae", "3. Segment")
        ended: list[object] = []
        segmenting.panel.ended.connect(ended.append)
        walk.wait(lambda: bool(ended), "the segmentation")
    result = next(layer for layer in viewer.layers if layer.name.endswith(": classes"))
    values = np.unique(truth)
    overlaps = {"whole stack": overlap(np.asarray(result.data), truth, values)}
    with walk.stage("objects"):
        ended.clear()
        walk.act(lambda: segmenting.objects.fold.expand(animate=False))
        walk.act(segmenting.objects.now_button.click)
        walk.wait(lambda: bool(ended), "the objects")
    with walk.stage("table"):
        walk.act(segmenting.objects.table_button.click)
        rest(1)
    print(f"{len(segmenting.objects.table['label'])} objects")
    return overlaps


def files_of(path: Path) -> list[Path]:
    """Return a file, or the files of a folder in order."""
    return sorted(path.iterdir()) if path.is_dir() else [path]


def read_truth(path: Path, join: list[int]) -> np.ndarray:
    """Read labels as one array, some values joined."""
    planes = []
    for file in files_of(path):
        source = open_source(file, labels=True)
        planes += [source.read(number)[0] for number in range(source.n_planes)]
    truth = planes[0] if len(planes) == 1 else np.stack(planes)
    return np.where(np.isin(truth, join), min(join), truth) if join else truth


def paths_on(where: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Choose strokes (points, row and column) that lie inside a region, along it."""
    inner = ndimage.binary_erosion(where, iterations=2)
    inner = inner if inner.any() else where
    places = np.argwhere(inner)
    return [longest_path(inner, start) for start in places[rng.integers(len(places), size=count)]]


def longest_path(inner: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Go straight from a place until the region ends, in the direction that leads farthest."""
    best = start[None]
    for direction in _DIRECTIONS:
        path = start + np.arange(_LONGEST)[:, None] * direction
        inside = ((path >= 0) & (path < inner.shape)).all(1)
        inside[inside] = inner[tuple(path[inside].T)]
        length = len(path) if inside.all() else int(inside.argmin())
        if length > len(best):
            best = path[:length]
    return best[np.unique(np.linspace(0, len(best) - 1, _POINTS).astype(int))]


def overlap(prediction: np.ndarray, truth: np.ndarray, values: np.ndarray) -> float:
    """Return the mean IoU over classes; class `number + 1` was painted for a value."""
    confusion = ConfusionMatrix(len(values))
    confusion.add(np.searchsorted(values, truth).ravel(), prediction.ravel().astype(int) - 1)
    return confusion.scores([str(value) for value in values]).mean_iou


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    table = Table(*rows[0], box=MARKDOWN)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=WIDTH).print(table)


if __name__ == "__main__":
    main()
