"""Synthetic electron microscopy of cells, with labels.

Cells are a warped Voronoi tessellation with membranes where two meet;
mitochondria are ellipsoids with cristae, vesicles small rings in clusters.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree

#: Names of the classes that `synthetic_em` labels, by their value.
SYNTHETIC_CLASSES = ("cytoplasm", "membrane", "mitochondrion", "vesicle")

CYTOPLASM, MEMBRANE, MITOCHONDRION, VESICLE = range(4)

_CELL_DIAMETER = 56.0
_MEMBRANE_HALF_WIDTH = 1.6
_COARSE = 2
_VOXELS_PER_MITOCHONDRION = 60_000
_VOXELS_PER_CLUSTER = 250_000
_VESICLES_PER_CLUSTER = 30


def synthetic_em(
    shape: Sequence[int], seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make a volume that looks like EM of neural tissue, and its labels.

    Parameters
    ----------
    shape : sequence of three int
        Planes, rows and columns; isotropic voxels.
    seed : int
        The same seed and shape give the same volume.

    Returns
    -------
    volume : ndarray, `shape`, uint8
        Membranes are dark.
    labels : ndarray, `shape`, uint8
        Indices into `SYNTHETIC_CLASSES`.

    Raises
    ------
    ValueError
        If `shape` is not three positive numbers.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be (planes, rows, columns), each at least 1, got {shape}")
    shape = tuple(shape)
    rng = np.random.default_rng(seed)
    cell, distance = _cells(shape, rng)
    tone = rng.normal(0, 9, cell.max() + 1).astype(np.float32)
    volume = 168 + tone[cell] + _texture(shape, rng)
    labels = np.zeros(shape, dtype=np.uint8)
    free = distance > _MEMBRANE_HALF_WIDTH + 2.5
    _add_mitochondria(volume, labels, free, cell, rng)
    _add_vesicles(volume, labels, free, rng)
    membrane = distance < _MEMBRANE_HALF_WIDTH
    labels[membrane] = MEMBRANE
    volume -= 105 * np.exp(-((distance / _MEMBRANE_HALF_WIDTH) ** 2))
    return _imaged(volume, rng), labels


def _smooth(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of unit variance, made coarse and enlarged."""
    step = max(1, int(sigma / 2))
    coarse = tuple(-(-size // step) + 2 for size in shape)
    noise = gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), sigma / step)
    noise /= max(float(noise.std()), 1e-6)
    return _enlarge(noise, shape, step)


def _enlarge(coarse: NDArray[np.float32], shape: tuple[int, ...], step: int) -> NDArray[np.float32]:
    """Enlarge linearly by a whole factor, and cut to `shape`."""
    if step == 1:
        return coarse[tuple(slice(size) for size in shape)]
    large: NDArray[np.float32] = zoom(coarse, step, order=1, grid_mode=True, mode="nearest")
    return large[tuple(slice(size) for size in shape)]


def _cells(
    shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Cell number of each voxel, and its distance in voxels from the nearest membrane."""
    coarse = tuple(-(-size // _COARSE) + 1 for size in shape)
    box = np.array(shape) + 2 * _CELL_DIAMETER
    count = max(4, int(np.prod(box) / _CELL_DIAMETER**3))
    seeds = rng.uniform(-_CELL_DIAMETER, box - _CELL_DIAMETER, (count, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, coarse), indexing="ij"), axis=-1) * float(_COARSE)
    for axis in range(3):
        grid[..., axis] += 9 * _smooth(coarse, 12, rng) + 2.5 * _smooth(coarse, 4, rng)
    distances, numbers = cKDTree(seeds).query(grid.reshape(-1, 3), k=2)
    # Distance from the plane halfway between the two nearest seeds.
    between = np.linalg.norm(seeds[numbers[:, 0]] - seeds[numbers[:, 1]], axis=1)
    wall = (distances[:, 1] ** 2 - distances[:, 0] ** 2) / (2 * between)
    wall = _enlarge(wall.reshape(coarse).astype(np.float32), shape, _COARSE)
    nearest = numbers[:, 0].reshape(coarse)
    for axis in range(3):
        nearest = nearest.repeat(_COARSE, axis=axis)
    return nearest[tuple(slice(size) for size in shape)], wall


def _texture(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Grain of the cytoplasm."""
    grain: NDArray[np.float32] = 7 * _smooth(shape, 2, rng) + 6 * _smooth(shape, 6, rng)
    return grain


def _local_box(
    centre: NDArray[np.float64], radius: float, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], NDArray[np.float64]]:
    """Slices around a centre, and the offsets from it, (3, planes, rows, columns)."""
    box = tuple(
        slice(max(0, int(c - radius)), min(size, int(c + radius) + 1))
        for c, size in zip(centre, shape, strict=True)
    )
    axes = [np.arange(part.start, part.stop) for part in box]
    grid = np.stack(np.meshgrid(*axes, indexing="ij")).astype(float)
    return box, grid - centre[:, None, None, None]


def _rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    orthogonal, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return orthogonal


def _add_mitochondria(
    volume: NDArray[np.float32],
    labels: NDArray[np.uint8],
    free: NDArray[np.bool_],
    cell: NDArray[np.intp],
    rng: np.random.Generator,
) -> None:
    """Dark ellipsoids with a darker rim and wavy cristae, each inside one cell."""
    shape = volume.shape
    for _ in range(max(1, volume.size // _VOXELS_PER_MITOCHONDRION)):
        centre = rng.uniform(0, shape)
        radii = np.array([rng.uniform(14, 30), rng.uniform(7, 11), rng.uniform(7, 11)])
        box, offset = _local_box(centre, radii.max(), shape)
        turned = np.tensordot(_rotation(rng), offset, axes=1)
        depth = np.sqrt(((turned / radii[:, None, None, None]) ** 2).sum(axis=0))
        middle = tuple(int(c) for c in centre)
        inside = (depth < 1) & free[box] & (cell[box] == cell[middle]) & (labels[box] == CYTOPLASM)
        phase = rng.uniform(0, 2 * np.pi)
        wave = 1.2 * np.sin(turned[1] / 3 + phase)
        cristae = np.cos((turned[0] + wave) * 2 * np.pi / rng.uniform(5, 6.5)) > 0.35
        rim = (depth > 0.82) | ~_eroded(inside)
        shade = np.where(rim, 62, np.where(cristae, 82, 124))
        volume[box][inside] = shade[inside] + 0.4 * (volume[box][inside] - 168)
        labels[box][inside] = MITOCHONDRION


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a mask that are not at its border; the array's own border does not count."""
    padded = np.pad(mask, 1, mode="edge")
    centre = (slice(1, -1),) * 3
    kept = mask.copy()
    for axis in range(3):
        for step in (-1, 1):
            kept &= np.roll(padded, step, axis=axis)[centre]
    return kept


def _add_vesicles(
    volume: NDArray[np.float32],
    labels: NDArray[np.uint8],
    free: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """Clusters of small spheres with a dark shell and a bright inside."""
    shape = volume.shape
    for _ in range(max(1, volume.size // _VOXELS_PER_CLUSTER)):
        cluster = rng.uniform(0, shape)
        for centre in cluster + rng.normal(0, 11, (_VESICLES_PER_CLUSTER, 3)):
            if np.any(centre < 0) or np.any(centre >= shape):
                continue
            radius = rng.uniform(2.6, 3.6)
            box, offset = _local_box(centre, radius, shape)
            depth = np.sqrt((offset**2).sum(axis=0))
            inside = depth < radius
            if not free[box][inside].all() or labels[box][inside].any():
                continue
            volume[box][inside] = np.where(depth[inside] > radius - 1.4, 84, 176)
            labels[box][inside] = VESICLE


def _imaged(volume: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, uneven illumination, plane-to-plane brightness and noise, as a microscope adds."""
    shape = volume.shape
    blurred = gaussian_filter(volume, (0.5, 0.7, 0.7))
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[1:]), indexing="ij")
    slope = rng.uniform(-0.06, 0.06, 2)
    light = 1 + slope[0] * rows + slope[1] * columns - 0.05 * (rows**2 + columns**2)
    flicker = rng.normal(1, 0.015, (shape[0], 1, 1))
    noise = rng.standard_normal(shape, dtype=np.float32) * 9
    image: NDArray[np.float32] = blurred * (light * flicker).astype(np.float32) + noise
    return image.clip(0, 255).astype(np.uint8)
