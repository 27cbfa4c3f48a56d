"""Seconds from the last stroke to the prediction, in the fine-tuning dock of a real window.

Strokes of every class are painted from the labels of an image, first four of a
class in a fresh viewer, then one more each time. Needs a screen; without one:
``xvfb-run -s "-screen 0 1600x1000x24" python benchmarks/quick_window.py ...``.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
import torch
from environment import RESULTS, describe, write_csv
from qtpy.QtWidgets import QApplication

from napari_affmae.data import find_pairs, read_labels
from napari_affmae.widgets.parts import preferences

_STROKES = (4, 1, 1, 1)  # of a class, before each prediction
_REACH, _DOTS, _BRUSH = 12, 8, 5  # pixels around a stroke's start, dots of it, and their size


def main() -> None:
    """Paint, wait, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of images and labels")
    parser.add_argument("--pretrained", type=Path, help="model; starting weights without it")
    parser.add_argument("--view", type=int, default=512, help="side of the view, pixels")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    # The user's stay as they are.
    preferences.preferences_file = lambda: folder / "preferences.json"
    preferences.remember(runs=folder / "runs")
    image, labels = find_pairs(arguments.data)[0]
    square = slice(0, arguments.view)
    plane = image.read(0, square, square)[0]
    truth = read_labels(labels, 0, square, square)
    viewer = napari.Viewer()
    viewer.window.resize(1500, 960)
    layer = viewer.add_image(plane, name="image")
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "2. Fine-tune")
    if arguments.pretrained:
        dock.start_from.choose(arguments.pretrained)
    dock.annotate(layer)
    painted = viewer.layers.selection.active
    painted.brush_size = _BRUSH
    values = np.unique(truth)
    while len(dock.classes.classes()) < len(values):
        dock.classes.add()
    live(lambda: False, 8)  # the user looks at the image, and begins to paint
    dock.quick.predict_button.setChecked(True)
    rng, seen, rows = np.random.default_rng(0), [], []
    dock.quick.predicted.connect(lambda: seen.append(time.perf_counter()))
    for count in _STROKES:
        seen.clear()
        for number, value in enumerate(values, 1):
            paint(painted, np.argwhere(truth == value), number, count, rng)
        start = time.perf_counter()
        longest = live(lambda: bool(seen) and not dock.quick.is_busy, 100)
        rows.append(
            {
                "strokes a class": count,
                "seconds": round(seen[-1] - start, 1),
                "longest lag, ms": round(1000 * longest),
            }
        )
        print(rows[-1])
    viewer.close()
    write_csv(RESULTS / "quick_window.csv", [row | describe(torch.device("cpu")) for row in rows])


def live(done: Callable[[], bool], seconds: float) -> float:
    """Let the window live until something is so; return its longest lag in seconds."""
    end = time.perf_counter() + seconds
    last, longest = time.perf_counter(), 0.0
    while not done() and last < end:
        QApplication.processEvents()
        time.sleep(0.002)
        now = time.perf_counter()
        last, longest = now, max(longest, now - last)
    return longest


def paint(
    layer: napari.layers.Labels,
    places: np.ndarray,
    value: int,
    count: int,
    rng: np.random.Generator,
) -> None:
    """Paint strokes of dots that lie on a class."""
    for start in places[rng.integers(len(places), size=count)]:
        near = places[np.abs(places - start).max(axis=1) < _REACH]
        for row, column in near[:: max(1, len(near) // _DOTS)]:
            layer.paint((int(row), int(column)), value)


if __name__ == "__main__":
    main()
