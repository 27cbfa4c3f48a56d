"""Kills runs at random moments, goes on, and compares what they end with.

    python benchmarks/killed.py [--kills 20] [--seed 0] [--work segment directions objects]

A tiny network segments a small synthetic stack into OME-Zarr, with probabilities and a pyramid,
along one direction and along three, and objects of the result are numbered and measured.
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
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from napari_affmae.config import FinetuneConfig, ObjectsConfig, SegmentConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import VolumeSegmenter, finetune, objects_to_file
from napari_affmae.engine.events import Event, ObjectsProgress, TilesDone
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.results.target import clear_parts
from napari_affmae.engine.results.volume import is_complete
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.files import scratch_path

SHAPE = (4, 200, 240)
# Seen from its sides a volume has as many planes as rows and columns.
_VOLUME = (16, 64, 80)
WORK = ["segment", "directions", "objects"]
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Job:
    """What is done, the image or classes, the model, and where the result goes."""

    work: str
    image: Path
    model: Path
    target: Path


def begun(job: Job) -> Iterator[Event]:
    """Begin to segment, or to look for objects."""
    if job.work == "objects":
        classes = open_source(job.image, labels=True)
        sizes = BlockSizes(chunk=16, side=64, depth=2)
        config = ObjectsConfig(three_d=True)
        return objects_to_file(classes, (0, 1), config, job.target, sizes=sizes)
    three = job.work == "directions"
    settings = SegmentConfig(device="cpu", probabilities=True, three_directions=three)
    sizes = BlockSizes(chunk=16, side=32 if three else 64)
    volumes = VolumeSegmenter(Origins(job.model, settings), settings, sizes=sizes)
    return volumes.segment(open_source(job.image), job.target)


def is_over(job: Job) -> bool:
    """Whether a kill came behind the end; removes parts of a segmentation, as `segment` does."""
    if not job.target.exists() or not is_complete(job.target):
        return False
    if job.work != "objects":
        clear_parts(job.target)
    return not scratch_path(job.target).exists()


def compute(job: Job, seconds: float | None) -> None:
    """Compute; a timer that starts with the first tile or block kills this process."""
    torch.set_num_threads(1)
    start, is_first = perf_counter(), True
    for event in [] if is_over(job) else begun(job):
        if isinstance(event, TilesDone | ObjectsProgress) and is_first:
            start, is_first = perf_counter(), False
            if seconds is not None:
                timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
                timer.daemon = True
                timer.start()
    job.target.with_suffix(".seconds").write_text(str(perf_counter() - start))


def run(job: Job, seconds: float | None = None) -> bool:
    """Compute in another process; return whether it came to its end."""
    process = _CONTEXT.Process(target=compute, args=(job, seconds))
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


def write_image(file: Path, volume: NDArray[np.uint8]) -> Path:
    """Write a stack."""
    with PlaneFile(file, len(volume), (8.0, 8.0), 8.0) as new:
        for plane in volume:
            new.write(plane)
    return file


def prepare(folder: Path) -> tuple[Path, Path, Path]:
    """Make a stack, a smaller volume, and a network."""
    volume, labels = synthetic_em(SHAPE, seed=0)
    sources = open_source(volume, axes="ZYX"), open_source(labels, axes="ZYX")
    config = FinetuneConfig(crop=64, batch=2, steps=2, device="cpu")
    for _ in finetune([sources], config, folder / "model"):
        pass
    small = write_image(folder / "volume.tif", synthetic_em(_VOLUME, seed=0)[0])
    return write_image(folder / "image.tif", volume), small, folder / "model"


def kill(job: Job, count: int, random: np.random.Generator) -> tuple[int, int]:
    """Kill so many times, go on, and compare; return how many results there are, and are equal."""
    whole = replace(job, target=job.target / "whole" / "a.zarr")
    run(whole)
    seconds = float(whole.target.with_suffix(".seconds").read_text())
    kills = results = equal = 0
    complete = False
    while kills < count or not complete:
        again = replace(job, target=job.target / f"killed-{results}" / "a.zarr")
        complete = run(again, random.uniform(0, seconds) if kills < count else None)
        if complete:
            results += 1
            wrong = list(differences(whole.target.parent, again.target.parent))
            equal += not wrong
            print(f"{job.work} {results}: {'equal' if not wrong else f'differs in {wrong}'}")
        else:
            kills += 1
    return results, equal


def main() -> None:
    """Kill, go on, compare, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", nargs="+", choices=WORK, default=WORK)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, volume, model = prepare(folder)
        classes = folder / "classes.zarr"
        run(Job("segment", image, model, classes))
        sources = {"segment": image, "directions": volume, "objects": classes}
        failed = False
        for work in arguments.work:
            job = Job(work, sources[work], model, folder / work)
            results, equal = kill(job, arguments.kills, random)
            failed |= equal < results
            print(f"{work}: {arguments.kills} kills, {results} results, {equal} equal to the byte")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
