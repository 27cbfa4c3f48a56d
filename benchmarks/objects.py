"""Finds the objects of a large segmented volume, to measure time and memory.

    python benchmarks/objects.py [--planes 64] [--side 4096] [--link touch] [--folder FOLDER]

A volume of classes with objects of two kinds is made in the folder, unless it is there, and its
objects are numbered in an OME-Zarr and measured in a table. Prints time, the peak of the process's
memory, the number of objects, and the size and number of the files.
"""

import argparse
import resource
import shutil
from pathlib import Path
from time import perf_counter

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter

from napari_affmae.config import ObjectsConfig
from napari_affmae.data import open_source
from napari_affmae.engine import objects_to_file
from napari_affmae.engine.events import ObjectsWritten

_TEXTURE = (64, 1024, 1024)


def make_volume(path: Path, planes: int, side: int) -> None:
    """Write classes, one byte a voxel: a block of random shapes again and again, each moved."""
    random = np.random.default_rng(0)
    smooth = gaussian_filter(random.standard_normal(_TEXTURE, np.float32), (2, 6, 6), mode="wrap")
    block = (smooth > 1.2 * smooth.std()).astype(np.uint8) + 2 * (smooth < -1.2 * smooth.std())
    repeats = -(-side // _TEXTURE[1])
    array = zarr.create_array(
        path,
        shape=(planes, side, side),
        chunks=(1, 512, 512),
        shards=(1, repeats * _TEXTURE[1], repeats * _TEXTURE[2]),
        dtype=np.uint8,
        dimension_names=("z", "y", "x"),
    )
    for plane in range(planes):
        again, number = divmod(plane, len(block))
        moved = np.roll(block[number], 37 * again, (0, 1))
        array[plane] = np.tile(moved, (repeats, repeats))[:side, :side]


def main() -> None:
    """Make, find, and print figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planes", type=int, default=64)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--link", choices=["touch", "overlap"], default="touch")
    parser.add_argument("--folder", type=Path, default=Path("build/objects"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    classes = arguments.folder / f"{arguments.planes}x{arguments.side}.zarr"
    if not classes.exists():
        make_volume(classes, arguments.planes, arguments.side)
    target = arguments.folder / "objects.zarr"
    shutil.rmtree(target, ignore_errors=True)

    config = ObjectsConfig(three_d=True, link=arguments.link)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter()
    *_, last = objects_to_file(open_source(classes, labels=True), (1, 2), config, target)
    seconds = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = last.count if isinstance(last, ObjectsWritten) else 0
    files = [path for path in target.rglob("*") if path.is_file()]
    stored = sum(path.stat().st_size for path in files)
    voxels = arguments.planes * arguments.side**2
    print("| voxels | objects | seconds | Mvoxel/s | peak memory, before it | result | files |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {voxels / 1e9:.2f} G | {count} | {seconds:.0f} | {voxels / seconds / 1e6:.1f} "
        f"| {peak / 1e6:.2f} GB, {before / 1e6:.2f} GB | {stored / 1e9:.3f} GB | {len(files)} |"
    )


if __name__ == "__main__":
    main()
