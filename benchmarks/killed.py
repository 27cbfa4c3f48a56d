"""Kills segmentations at random moments, goes on, and compares what they end with.

    python benchmarks/killed.py [--kills 20] [--seed 0]

A tiny network segments a small synthetic stack into OME-Zarr, with probabilities and a pyramid.
The process is killed (SIGKILL) at a moment that is drawn from the whole time that it takes, and
started again; each result that gets complete is compared with that of a run that nobody killed,
file by file.
"""

import argparse
import filecmp
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from napari_affmae.config import FinetuneConfig, SegmentConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import VolumeSegmenter, finetune
from napari_affmae.engine.events import TilesDone
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.volumes.origins import Origins

SHAPE = (4, 200, 240)
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Job:
    """The image, the model, and where the result goes."""

    image: Path
    model: Path
    target: Path


def segment(job: Job, seconds: float | None) -> None:
    """Segment; a timer that starts with the first tile kills this process."""
    torch.set_num_threads(1)
    config = SegmentConfig(device="cpu", probabilities=True)
    sizes = BlockSizes(chunk=16, side=64)
    volumes = VolumeSegmenter(Origins(job.model, config), config, sizes=sizes)
    events = volumes.segment(open_source(job.image), job.target)
    start = perf_counter()
    for event in events:
        if isinstance(event, TilesDone) and event.done == 1:
            start = perf_counter()
            if seconds is not None:
                timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
                timer.daemon = True
                timer.start()
    job.target.with_suffix(".seconds").write_text(str(perf_counter() - start))


def run(job: Job, seconds: float | None = None) -> bool:
    """Segment in another process; return whether it came to its end."""
    process = _CONTEXT.Process(target=segment, args=(job, seconds))
    process.start()
    process.join()
    if process.exitcode not in {0, -signal.SIGKILL}:
        raise RuntimeError(f"the process ended with code {process.exitcode}")
    return process.exitcode == 0


def differences(first: Path, second: Path) -> Iterator[str]:
    """Name the files that differ between two folders, or are in one of them alone."""
    compared = filecmp.dircmp(first, second, ignore=["a.seconds"])
    yield from compared.left_only + compared.right_only + compared.funny_files
    _, *wrong = filecmp.cmpfiles(first, second, compared.common_files, shallow=False)
    yield from wrong[0] + wrong[1]
    for name in compared.common_dirs:
        yield from differences(first / name, second / name)


def prepare(folder: Path) -> tuple[Path, Path]:
    """Make a stack and a network."""
    volume, labels = synthetic_em(SHAPE, seed=0)
    image = folder / "image.tif"
    with PlaneFile(image, len(volume), (8.0, 8.0), 8.0) as file:
        for plane in volume:
            file.write(plane)
    sources = open_source(volume, axes="ZYX"), open_source(labels, axes="ZYX")
    config = FinetuneConfig(crop=64, batch=2, steps=2, device="cpu")
    for _ in finetune([sources], config, folder / "model"):
        pass
    return image, folder / "model"


def main() -> None:
    """Kill, go on, compare, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, model = prepare(folder)
        whole = Job(image, model, folder / "whole" / "a.zarr")
        run(whole)
        seconds = float(whole.target.with_suffix(".seconds").read_text())
        kills = results = equal = 0
        complete = False
        while kills < arguments.kills or not complete:
            job = Job(image, model, folder / f"killed-{results}" / "a.zarr")
            wanted = random.uniform(0, seconds) if kills < arguments.kills else None
            complete = run(job, wanted)
            if complete:
                results += 1
                wrong = list(differences(whole.target.parent, job.target.parent))
                equal += not wrong
                print(f"result {results}: {'equal' if not wrong else f'differs in {wrong}'}")
            else:
                kills += 1
    print(f"{kills} kills, {results} results, {equal} of them equal to the byte")
    if equal < results:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
