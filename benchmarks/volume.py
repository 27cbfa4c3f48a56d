"""Segments a large volume without a network, to measure all the rest.

    python benchmarks/volume.py [--planes 64] [--side 8192] [--tile 1024] [--folder FOLDER]
    python benchmarks/volume.py --planes 464 --side 464 --tile 256 --three-directions

A volume of synthetic electron microscopy is made in the folder, unless it is there, and segmented
into OME-Zarr. A threshold stands in for the network, so that what is measured is reading,
normalising, blending, and writing blocks and the pyramid. Prints time, the peak of the process's
memory, and the size and number of the files.
"""

import argparse
import resource
import shutil
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import zarr
from torch import Tensor

from napari_affmae.config import FinetuneConfig, SegmentConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import VolumeSegmenter, finetune
from napari_affmae.engine.inference.forward_passes import ForwardPasses
from napari_affmae.engine.results.target import is_unfinished
from napari_affmae.engine.volumes.executor import Threads
from napari_affmae.engine.volumes.origins import Origins

CLASSES = 4
_TEXTURE = 1024
_CUBE = 128


def make_volume(path: Path, planes: int, side: int, *, cubes: bool) -> None:
    """Write a volume of one byte a voxel, of shifted copies of a texture, in planes or cubes."""
    texture, _ = synthetic_em((1, _TEXTURE, _TEXTURE), seed=0)
    repeats = -(-side // _TEXTURE)
    array = zarr.create_array(
        path,
        shape=(planes, side, side),
        chunks=(_CUBE,) * 3 if cubes else (1, _TEXTURE, _TEXTURE),
        shards=None if cubes else (1, repeats * _TEXTURE, repeats * _TEXTURE),
        dtype=np.uint8,
        dimension_names=("z", "y", "x"),
    )
    thick = _CUBE if cubes else 1
    for first in range(0, planes, thick):
        moved = [
            np.roll(texture[0], 37 * n, (0, 1)) for n in range(first, min(first + thick, planes))
        ]
        array[first : first + thick] = np.tile(moved, (repeats, repeats))[:, :side, :side]


def make_model(folder: Path) -> Path:
    """Train the smallest network for two steps."""
    volume, labels = synthetic_em((6, 80, 96), seed=0)
    sources = open_source(volume, axes="ZYX"), open_source(labels, axes="ZYX")
    config = FinetuneConfig(crop=64, batch=2, steps=2, device="cpu")
    for _ in finetune([sources], config, folder / "model"):
        pass
    return folder / "model"


def threshold(_passes: ForwardPasses, tiles: Tensor) -> Tensor:
    """Stand in for the network: what is dark is membrane."""
    dark = torch.sigmoid(-tiles)
    rest = (1 - dark) / (CLASSES - 1)
    return torch.cat([rest, dark, *[rest] * (CLASSES - 2)], 1)


def main() -> None:
    """Make, segment, and print figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planes", type=int, default=64)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--three-directions", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("build/volume"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    cubes = arguments.planes > _CUBE
    image = arguments.folder / f"{arguments.planes}x{arguments.side}.zarr"
    if not image.exists():
        make_volume(image, arguments.planes, arguments.side, cubes=cubes)
    model = arguments.folder / "model"
    if not model.exists():
        make_model(arguments.folder)
    target = arguments.folder / "segmented.zarr"
    if not is_unfinished(target):  # a run that was killed goes on
        shutil.rmtree(target, ignore_errors=True)

    ForwardPasses.__call__ = threshold  # type: ignore[method-assign]
    config = SegmentConfig(
        device="cpu", tile=arguments.tile, three_directions=arguments.three_directions
    )
    volumes = VolumeSegmenter(Origins(model, config), config, executor=Threads(arguments.workers))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter()
    for _ in volumes.segment(open_source(image), target):
        pass
    seconds = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = [path for path in target.rglob("*") if path.is_file()]
    stored = sum(path.stat().st_size for path in files)
    voxels = arguments.planes * arguments.side**2
    print("| voxels | seconds | Mvoxel/s | peak memory, before it | result | files |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {voxels / 1e9:.2f} G | {seconds:.0f} | {voxels / seconds / 1e6:.1f} "
        f"| {peak / 1e6:.2f} GB, {before / 1e6:.2f} GB | {stored / 1e9:.3f} GB | {len(files)} |"
    )


if __name__ == "__main__":
    main()
