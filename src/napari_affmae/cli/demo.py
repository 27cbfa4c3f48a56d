"""The whole job on synthetic images: pretrain, fine-tune, segment, measure, draw."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from napari_affmae.cli.evaluate import measure, score_table
from napari_affmae.cli.inputs import Pair, check_folder
from napari_affmae.cli.progress import Reporter, meter
from napari_affmae.cli.report import Example, draw_report
from napari_affmae.cli.stopping import deliver, this_command
from napari_affmae.cli.terminal import Terminal, say
from napari_affmae.config import FinetuneConfig, LabelClass, PretrainConfig, SegmentConfig
from napari_affmae.data import SYNTHETIC_CLASSES, ImageSource, open_source, synthetic_em
from napari_affmae.engine import finetune, pretrain, segment_to_file
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.store.run_folder import read_metrics

# Lengths are times, so that a slow computer needs no longer than a fast one. Both start from
# what comes with the program: a pretraining that is so short only shows what it does.
_PRETRAIN_MINUTES = 0.3
_FINETUNE_MINUTES = 2.75
_CROP = 128
_SIDE = 256
_UNLABELLED, _LABELLED, _TEST = 24, 6, 4
_PLANES_APART = 4
_PIXEL_NM = (8.0, 8.0)
_COLORS = ("#33415c", "#f4d35e", "#ee6352", "#59cd90")
_CLASSES = tuple(
    LabelClass(value=value, name=name, color=color)
    for value, (name, color) in enumerate(zip(SYNTHETIC_CLASSES, _COLORS, strict=True))
)


def run_demo(out: Path, seed: int, console: Console) -> None:
    """Make images, learn from them, and leave scores and a report.

    A demo that was stopped goes on where it was.

    Parameters
    ----------
    out : Path
        Folder for everything.
    seed : int
        Of images, weights, crops and masks.
    console : rich.console.Console
        Where progress is shown.
    """
    check_folder(out)
    # A second thread speeds networks of this size up by a fifth on an idle computer,
    # and slows them down tenfold where another program wants the core too.
    torch.set_num_threads(1)
    unlabelled, _ = _images(out / "data" / "unlabelled", _UNLABELLED, 3 * seed)
    labelled = _images(out / "data" / "labelled", _LABELLED, 3 * seed + 1)
    test = _images(out / "data" / "test", _TEST, 3 * seed + 2)
    pretrained, finetuned = out / "pretrain", out / "finetune"
    _pretrain(unlabelled, pretrained, seed, console)
    _finetune(labelled, finetuned, seed, console)
    _segment(test[0], finetuned, out / "segmented.tif", console)
    scores = measure([test], finetuned, SegmentConfig(), console)
    report = out / "report.png"
    title = (
        f"napari-affmae on synthetic images: mIoU {scores.mean_iou:.3f}, "
        f"mDice {scores.mean_dice:.3f} on {_TEST} planes that it was not trained on"
    )
    draw_report(
        report,
        title=title,
        examples=_examples(test, out / "segmented.tif"),
        classes=_CLASSES,
        reconstruction=_last_preview(pretrained),
        pretraining=read_metrics(pretrained),
        finetuning=read_metrics(finetuned),
    )
    Terminal().print(score_table(scores))
    say(console, f"report: {report}")


def _images(folder: Path, planes: int, seed: int) -> Pair:
    """Make a stack and its labels, and open them as any other files."""
    arrays = synthetic_em((planes * _PLANES_APART, _SIDE, _SIDE), seed)
    files = (folder / "image.tif", folder / "label.tif")
    for path, stack in zip(files, arrays, strict=True):
        with PlaneFile(path, planes, _PIXEL_NM) as file:
            for plane in stack[::_PLANES_APART]:
                file.write(plane)
    return open_source(files[0]), open_source(files[1])


def _pretrain(source: ImageSource, run: Path, seed: int, console: Console) -> None:
    config = PretrainConfig(
        crop=_CROP,
        batch=4,
        minutes=_PRETRAIN_MINUTES,
        seed=seed,
        validation_steps=50,
    )
    with meter(console, "pretrain") as progress:
        events = pretrain([source], config, run, resume=run.exists())
        deliver(events, [Reporter(console, progress).show], console, resume=this_command())


def _finetune(pair: Pair, run: Path, seed: int, console: Console) -> None:
    config = FinetuneConfig(
        crop=_CROP,
        batch=2,
        minutes=_FINETUNE_MINUTES,
        learning_rate=1.5e-3,
        layer_decay=0.95,  # drawn images are unlike those that the lower layers have learned from
        seed=seed,
        classes=_CLASSES,
        validation_gap=0,  # the planes were drawn apart
        validation_steps=50,
    )
    with meter(console, "finetune") as progress:
        events = finetune([pair], config, run, resume=run.exists())
        deliver(events, [Reporter(console, progress).show], console, resume=this_command())


def _segment(source: ImageSource, model: Path, target: Path, console: Console) -> None:
    with meter(console, "segment") as progress:
        events = segment_to_file(source, model, SegmentConfig(), target, overwrite=True)
        deliver(events, [Reporter(console, progress).show], console, resume=this_command())


def _examples(test: Pair, segmented: Path) -> list[Example]:
    image, label = test
    with open_source(segmented) as prediction:
        return [
            Example(*(source.read(plane)[0] for source in (image, label, prediction)))
            for plane in (0, _TEST - 1)
        ]


def _last_preview(run: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(max((run / "previews").glob("*.npz"))) as arrays:
        return {name: array.astype(np.float32) for name, array in arrays.items()}
