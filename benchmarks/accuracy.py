"""Score segmentation of real images, with and without pretraining, beside simple methods.

Pretrains one network, fine-tunes it on each labelled data set from the
pretrained and from random weights, and scores both on the validation images,
beside a random forest on pixel features and the commonest class. Runs that
were stopped go on where they were.

The validation images also choose each run's best weights, so their scores
flatter the networks a little; compare them with each other, and report test
images elsewhere.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from baselines import CommonestClass, PixelForest, score
from environment import RESULTS, WIDTH, describe, write_csv
from pictures import Row, draw_rows, first_planes
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from napari_affmae.config import FinetuneConfig, LabelClass, PretrainConfig, SegmentConfig
from napari_affmae.data import (
    ImageSource,
    count_values,
    default_classes,
    find_pairs,
    find_sources,
    read_labels,
)
from napari_affmae.engine import Scores, evaluate, finetune, pretrain, segment
from napari_affmae.engine.events import Event, Notice, PlaneDone, StepDone, Validated

Pair = tuple[ImageSource, ImageSource]
STARTS = ("pretrained", "random")
PRETRAIN = "pretrain"


@dataclass(frozen=True)
class Dataset:
    """Labelled images: ``train`` and ``val``, each with ``images`` and ``labels``."""

    name: str
    train: list[Pair]
    val: list[Pair]
    classes: tuple[LabelClass, ...]

    @classmethod
    def open(cls, folder: Path, names: Mapping[str, Sequence[str]]) -> "Dataset":
        """Find the pairs of a folder and the classes of its training labels."""
        train, val = (find_pairs(folder / part) for part in ("train", "val"))
        name = folder.resolve().name
        values = {value for _, labels in train for value in count_values(labels)}
        classes = default_classes(values)
        if name in names:
            classes = tuple(
                item.model_copy(update={"name": given})
                for item, given in zip(classes, names[name], strict=True)
            )
        return cls(name, train, val, classes)


@dataclass(frozen=True)
class Result:
    """One method's scores on one data set."""

    dataset: str
    method: str
    seed: int
    scores: Scores
    seconds: float
    steps: int | None = None
    settings: str = ""

    def rows(self) -> list[dict[str, object]]:
        """Give a row for each class, and one for the mean."""
        shared = {"dataset": self.dataset, "method": self.method, "seed": self.seed}
        cost = {
            "seconds": round(self.seconds, 1),
            "steps": "" if self.steps is None else self.steps,
            "settings": self.settings,
        }
        scored = [(name, self.scores.iou[name], self.scores.dice[name]) for name in self.scores.iou]
        scored.append(("mean", self.scores.mean_iou, self.scores.mean_dice))
        return [
            shared | {"class": name, "iou": round(iou, 4), "dice": round(dice, 4)} | cost
            for name, iou, dice in scored
        ]


def main() -> None:
    """Train, score, print and save."""
    arguments = parse_arguments()
    console = Console(width=WIDTH)
    pretrained = pretrain_once(arguments, console)
    names = dict(named_classes(text) for text in arguments.classes)
    results: list[Result] = []
    for folder in arguments.data:
        results += compare(Dataset.open(folder, names), pretrained, arguments, console)
        save(results, arguments)
    console.print(table_of(results))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Settings are JSON objects with fields of PretrainConfig and FinetuneConfig, "
        'for instance \'{"steps": 2000, "crop": 256, "batch": 8}\'.',
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="labelled data sets")
    parser.add_argument("--pretrain-on", type=Path, nargs="+", required=True, help="images")
    parser.add_argument("--preset", choices=("nano", "small", "base"), default="nano")
    parser.add_argument("--pretrain", type=json.loads, required=True, metavar="SETTINGS")
    parser.add_argument("--finetune", type=json.loads, required=True, metavar="SETTINGS")
    parser.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="DATA=NAME,NAME",
        help="names of a data set's classes, by ascending label value",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of fine-tuning")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of CSV and PNG files")
    return parser.parse_args()


def named_classes(text: str) -> tuple[str, list[str]]:
    """Split ``data=name,name``."""
    data, _, names = text.partition("=")
    return data, names.split(",")


def pretrain_once(arguments: argparse.Namespace, console: Console) -> Path:
    """Pretrain, or finish what was begun; returns the run folder."""
    found = find_sources(arguments.pretrain_on)
    for skipped in found.skipped:
        console.print(f"left out {skipped.path}: {skipped.reason}")
    config = PretrainConfig(
        **{"preset": arguments.preset, "device": arguments.device} | arguments.pretrain
    )
    run: Path = arguments.runs / PRETRAIN
    follow(
        pretrain(found.sources, config, run, resume=(run / "run.json").exists()),
        "pretraining",
        console,
    )
    return run


def compare(
    dataset: Dataset, pretrained: Path, arguments: argparse.Namespace, console: Console
) -> list[Result]:
    """Score all methods on a data set, and draw their predictions."""
    results, columns = [], {}
    for baseline in (CommonestClass(), PixelForest(seed=0)):
        start = time.perf_counter()
        baseline.fit(dataset.train)
        scores = score(baseline, dataset.val, dataset.classes)
        seconds = time.perf_counter() - start
        results.append(Result(dataset.name, baseline.name, 0, scores, seconds))
        columns[baseline.name] = [baseline.predict(plane) for plane in first_planes(dataset.val)]
        console.print(f"{dataset.name}, {baseline.name}: mean IoU {scores.mean_iou:.3f}")
    for seed in arguments.seeds:
        for start_from in STARTS:
            run = arguments.runs / f"{dataset.name}_{start_from}_{seed}"
            weights = pretrained if start_from == "pretrained" else None
            results.append(finetune_and_score(dataset, weights, seed, run, arguments, console))
            if seed == arguments.seeds[0]:
                columns[start_from] = [
                    predict(run, image, arguments.device) for image, _ in dataset.val
                ]
    rows = [
        Row(plane[0], read_labels(labels, 0), {name: maps[i] for name, maps in columns.items()})
        for i, (plane, (_, labels)) in enumerate(
            zip(first_planes(dataset.val), dataset.val, strict=True)
        )
    ]
    draw_rows(arguments.out / f"accuracy_{dataset.name}.png", rows, dataset.classes)
    return results


def finetune_and_score(
    dataset: Dataset,
    pretrained: Path | None,
    seed: int,
    run: Path,
    arguments: argparse.Namespace,
    console: Console,
) -> Result:
    """Fine-tune, or finish what was begun, and score the best weights."""
    given = {"preset": arguments.preset, "device": arguments.device, "classes": dataset.classes}
    config = FinetuneConfig(**given | arguments.finetune | {"seed": seed})
    events = finetune(
        dataset.train,
        config,
        run,
        validation=dataset.val,
        pretrained=pretrained,
        resume=(run / "run.json").exists(),
    )
    follow(events, run.name, console)
    steps, seconds = effort(run)
    scores = evaluate(dataset.val, run, SegmentConfig(device=arguments.device))
    method = "random" if pretrained is None else "pretrained"
    settings = config.model_dump_json(exclude={"classes"})
    return Result(dataset.name, method, seed, scores, seconds, steps, settings)


def follow(events: Generator[Event, None, None], label: str, console: Console) -> None:
    """Run to the end, telling what matters."""
    with console.status(label) as status:
        for event in events:
            if isinstance(event, StepDone):
                left = "" if event.seconds_left is None else f", {event.seconds_left:.0f} s left"
                status.update(f"{label}: step {event.step}, loss {event.loss:.4f}{left}")
            elif isinstance(event, Notice):
                console.print(f"{label}: {event.message}")
            elif isinstance(event, Validated):
                score = "" if event.mean_iou is None else f", mean IoU {event.mean_iou:.3f}"
                console.print(f"{label}: step {event.step}, loss {event.loss:.4f}{score}")


def effort(run: Path) -> tuple[int, float]:
    """Read the steps and seconds that a finished run took, all sessions together."""
    last = max(run.glob("checkpoints/step_*"))
    state = json.loads((last / "state.json").read_text())
    return state["step"], state["elapsed"]


def predict(run: Path, image: ImageSource, device: str) -> Any:
    """Segment the first plane of an image."""
    for event in segment(image, run, SegmentConfig(device=device)):
        if isinstance(event, PlaneDone):
            return event.labels
    raise AssertionError("a segmentation ended without a plane")


def save(results: Sequence[Result], arguments: argparse.Namespace) -> None:
    """Write the table so far, so that a long comparison may be cut short."""
    environment = describe(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    steps, seconds = effort(arguments.runs / PRETRAIN)
    shared = {
        "preset": arguments.preset,
        "pretrain_settings": json.dumps(arguments.pretrain),
        "pretrain_steps": steps,
        "pretrain_seconds": round(seconds, 1),
    }
    command = {"command": shlex.join(["python", *sys.argv])}
    rows = [row | shared | environment | command for result in results for row in result.rows()]
    write_csv(arguments.out / f"accuracy_{arguments.preset}.csv", rows)


def table_of(results: Sequence[Result]) -> Table:
    """Lay out the scores, a row for each run."""
    table = Table(title="IoU on validation images", box=MARKDOWN)
    for heading in ("data", "method", "seed", "steps", "minutes", "mean IoU", "mean Dice", "IoU"):
        table.add_column(heading, justify="left" if heading in {"data", "method"} else "right")
    for result in results:
        classes = ", ".join(f"{name} {iou:.3f}" for name, iou in result.scores.iou.items())
        table.add_row(
            result.dataset,
            result.method,
            str(result.seed),
            "" if result.steps is None else str(result.steps),
            f"{result.seconds / 60:.1f}",
            f"{result.scores.mean_iou:.3f}",
            f"{result.scores.mean_dice:.3f}",
            classes,
        )
    return table


if __name__ == "__main__":
    main()
