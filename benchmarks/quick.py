"""Time quick training on painted strokes, and score it beside a random forest on the same ones.

Strokes are drawn along random walks within each class of the labels, those of
one class before the others. One view of an image is painted; the rest of it and
a view of another image are scored.
"""

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from baselines import PixelForest, pixel_features
from environment import RESULTS, WIDTH, describe, write_csv
from numpy.typing import NDArray
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from scipy.ndimage import binary_erosion

from napari_affmae.config import QuickConfig
from napari_affmae.data import (
    ImageSource,
    count_values,
    default_classes,
    find_pairs,
    read_labels,
)
from napari_affmae.engine import QuickTraining, QuickView
from napari_affmae.engine.events import ViewPredicted
from napari_affmae.engine.inference.scores import ConfusionMatrix
from napari_affmae.engine.store.kept_features import KeptFeatures
from napari_affmae.errors import DataError

NOTHING = -1
LENGTH, THICKNESS = 60, 3  # of a stroke, pixels
TURN = 0.15  # radians a pixel
FAR = 3  # the other image is so many further on
COLUMNS = (
    ("pixels", "pixels", ".0f"),
    ("alone s", "alone_seconds", ".1f"),
    ("first s", "first_seconds", ".1f"),
    ("later s", "later_seconds", ".1f"),
    ("new s", "new_seconds", ".1f"),
    ("reopened s", "reopened_seconds", ".1f"),
    ("same", "same_iou", ".3f"),
    ("other", "other_iou", ".3f"),
)


@dataclass(frozen=True)
class Trial:
    """Scores and seconds of one painted view; IoU is the mean over classes.

    While one class is painted (``alone``) there is nothing to tell apart; quick
    training looks at the image then. The same strokes are also given at once to a training
    that knows nothing of the image (``new``), and to another one that finds on disk what
    the network has said of it (``reopened``).
    """

    method: str
    strokes: int
    pixels: int
    alone_seconds: float
    first_seconds: float
    later_seconds: float
    new_seconds: float
    reopened_seconds: float
    same_iou: float
    other_iou: float


def main() -> None:
    """Paint, train, score, print and save."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    trials = []
    for strokes in arguments.strokes:
        for seed in range(arguments.trials):
            for trial in run(arguments, strokes, seed):
                trials.append(trial)
                print(trial, file=sys.stderr)
    Console(width=WIDTH).print(table_of(trials))
    shared = {
        **describe(torch.device(arguments.device)),
        "threads": arguments.threads,
        "command": shlex.join(["python", *sys.argv]),
    }
    rows = [vars(trial) | shared for trial in trials]
    write_csv(arguments.out / f"quick_{arguments.device}.csv", rows)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of images and labels")
    parser.add_argument("--pretrained", help="model or starting weights; random without")
    parser.add_argument("--view", type=int, default=512, help="side of a view, pixels")
    parser.add_argument("--strokes", type=int, nargs="+", default=[5, 15], help="of each class")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def run(arguments: argparse.Namespace, strokes: int, seed: int) -> list[Trial]:
    """Paint a view, and compare both methods."""
    pairs = find_pairs(arguments.data)
    here, there = pairs[seed % len(pairs)], pairs[(seed + FAR) % len(pairs)]
    square = slice(0, arguments.view)
    targets = [read_labels(labels, 0, square, square) for _, labels in (here, there)]
    values = sorted({value for _, labels in pairs for value in count_values(labels)})
    painted = paint(targets[0], values, strokes, np.random.default_rng(seed))
    config = QuickConfig(seed=seed, device=arguments.device)

    def begin(kept: KeptFeatures | None) -> QuickTraining:
        return QuickTraining(
            arguments.pretrained,
            [here[0], there[0]],
            default_classes(values),
            config,
            ignore_value=NOTHING,
            kept=kept,
        )

    training = begin(None)
    images = [training.normalize(image) for image, _ in (here, there)]
    views = [QuickView(image, 0, square, square) for image in images]
    half = painted.copy()
    half[: len(half) // 2] = NOTHING
    complete = len(set(np.unique(half))) == len(values) + 1
    alone = look(training, QuickView(images[0], 0, square, square, of_one_class(painted)), views[0])
    start = time.perf_counter()
    update(
        training, QuickView(images[0], 0, square, square, half if complete else painted), views[0]
    )
    first = time.perf_counter() - start
    start = time.perf_counter()
    same = update(training, QuickView(images[0], 0, square, square, painted), views[0])
    later = time.perf_counter() - start
    other = update(training, QuickView(images[0], 0, square, square, painted), views[1])
    rest = np.where(painted == NOTHING, targets[0], NOTHING)
    pixels = int((painted != NOTHING).sum())
    ours = Trial(
        "quick training",
        strokes,
        pixels,
        alone,
        first,
        later,
        *reopen(begin, here[0], painted, square),
        iou(rest, same, values),
        iou(targets[1], other, values),
    )
    planes = [image.read(0, square, square) for image in images]
    start = time.perf_counter()
    same, other = forest(planes, painted, seed)
    seconds = time.perf_counter() - start
    times = (math.nan, seconds, seconds, math.nan, math.nan)
    theirs = iou(rest, same, values), iou(targets[1], other, values)
    return [ours, Trial(PixelForest.name, strokes, pixels, *times, *theirs)]


def look(training: QuickTraining, strokes: QuickView, show: QuickView) -> float:
    """Update while one class is painted, and return the seconds until that is said."""
    start = time.perf_counter()
    try:
        update(training, strokes, show)
    except DataError:
        return time.perf_counter() - start
    raise AssertionError("one class was enough")


def reopen(
    begin: Callable[[KeptFeatures], QuickTraining],
    image: ImageSource,
    painted: NDArray[np.int64],
    square: slice,
) -> list[float]:
    """Return the seconds of the first update, without and with features on disk."""
    seconds, labels = [], []
    with TemporaryDirectory() as folder:
        for _ in range(2):
            kept = KeptFeatures(Path(folder), lambda: 10**12)
            training = begin(kept)
            view = QuickView(training.normalize(image), 0, square, square, painted)
            start = time.perf_counter()
            labels.append(update(training, view, view))
            seconds.append(time.perf_counter() - start)
            kept.wait()
    if not np.array_equal(*labels):
        raise AssertionError("features on disk have changed the prediction")
    return seconds


def of_one_class(painted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep the strokes of one class only."""
    return np.where(painted == painted.max(), painted, NOTHING)


def update(training: QuickTraining, strokes: QuickView, show: QuickView) -> NDArray[np.integer]:
    """Run one update to its end."""
    for event in training.update([strokes], show):
        if isinstance(event, ViewPredicted):
            return event.labels
    raise AssertionError("an update ended without a prediction")


def forest(
    planes: Sequence[NDArray[np.float32]], painted: NDArray[np.int64], seed: int
) -> list[NDArray[np.int64]]:
    """Fit the forest of the other benchmarks to the painted pixels, and predict both planes."""
    features = [pixel_features(plane) for plane in planes]
    chosen = painted.ravel() != NOTHING
    classifier = PixelForest(seed).forest
    classifier.fit(features[0][chosen], painted.ravel()[chosen])
    return [classifier.predict(part).reshape(painted.shape) for part in features]


def paint(
    labels: NDArray[np.int64], values: Sequence[int], strokes: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw strokes that stay within the objects of a class."""
    painted = np.full(labels.shape, NOTHING)
    for value in values:
        inner = binary_erosion(labels == value, iterations=2)
        starts = np.argwhere(inner)
        for start in starts[rng.integers(len(starts), size=strokes)] if len(starts) else ():
            stroke(painted, labels, inner, start.astype(float), rng)
    return painted


def stroke(
    painted: NDArray[np.int64],
    labels: NDArray[np.int64],
    inner: NDArray[np.bool_],
    place: NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    """Walk until the class or the stroke ends."""
    angle = rng.uniform(0, 2 * np.pi)
    value = labels[tuple(place.astype(int))]
    for _ in range(LENGTH):
        row, column = np.rint(place).astype(int)
        inside = 0 <= row < len(labels) and 0 <= column < labels.shape[1]
        if not inside or not inner[row, column]:
            return
        reach = THICKNESS // 2
        part = (
            slice(max(0, row - reach), row + reach + 1),
            slice(max(0, column - reach), column + reach + 1),
        )
        painted[part] = np.where(labels[part] == value, value, painted[part])
        angle += rng.normal(0, TURN)
        place = place + np.array([np.sin(angle), np.cos(angle)])


def iou(target: NDArray[np.int64], predicted: NDArray[np.integer], values: Sequence[int]) -> float:
    """Mean IoU over the classes, of pixels whose target is not `NOTHING`."""
    confusion = ConfusionMatrix(len(values))
    known = target != NOTHING
    confusion.add(np.searchsorted(values, target[known]), np.searchsorted(values, predicted[known]))
    return confusion.scores([str(value) for value in values]).mean_iou


def table_of(trials: Sequence[Trial]) -> Table:
    """Lay out the means over trials."""
    table = Table(title="Quick training", box=MARKDOWN)
    table.add_column("method")
    table.add_column("strokes a class", justify="right")
    for heading, *_ in COLUMNS:
        table.add_column(heading, justify="right")
    for method, strokes in dict.fromkeys((trial.method, trial.strokes) for trial in trials):
        chosen = [trial for trial in trials if (trial.method, trial.strokes) == (method, strokes)]
        means = [np.mean([getattr(trial, name) for trial in chosen]) for _, name, _ in COLUMNS]
        cells = [
            "" if np.isnan(mean) else format(mean, shape)
            for mean, (*_, shape) in zip(means, COLUMNS, strict=True)
        ]
        table.add_row(method, str(strokes), *cells)
    return table


if __name__ == "__main__":
    main()
