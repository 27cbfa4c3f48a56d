"""Random changes to crops: how they are bent, turned, and lit, drawn for a whole batch.

What is drawn here is carried out by `affmae_kernels.cut_crops`, where the image lies.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.special import ndtri

from napari_affmae.config import AugmentationConfig
from napari_affmae.data.crops.numbers import uniform

_ROTATION = np.pi / 4
_LARGEST_SCALE = 1.25
_SHEAR = 0.1
_KNOT_SPACING = 32
_DISPLACEMENT = 5.0

_BRIGHTNESS = 0.3
_CONTRAST = (0.75, 1.33)
_GAMMA = (0.7, 1.5)
_BLUR = (0.3, 1.2)
_NOISE = 0.25

# Uses of random numbers; see `numbers.words`. Positions of crops have use 0.
_SHAPES, _KNOTS, _LIGHT = 1, 2, 3

NONE = AugmentationConfig(flips=False, affine=0, elastic=0, intensity=0, noise=0)


@dataclass(frozen=True)
class Shapes:
    """How the crops of a batch are bent and turned.

    Attributes
    ----------
    turns : ndarray, (B, 2, 2), float64
        Quarter turns and mirrors alone.
    matrices : ndarray, (B, 2, 2), float64
        Map the offset of a pixel from the crop's centre (row, column): the turns,
        then rotation, scale and shear.
    knots : ndarray, (B, 2, K, K), float64
        Of the displacement that is added to the offset before, pixels.
    """

    turns: NDArray[np.float64]
    matrices: NDArray[np.float64]
    knots: NDArray[np.float64]

    def places(self, pixels: NDArray[np.float64], crop: int) -> NDArray[np.float64]:
        """Say where pixels of each crop come from, relative to its centre.

        Parameters
        ----------
        pixels : ndarray, (B, 2)
            One whole pixel (row, column) of each crop.
        crop : int
            Side of the crops.

        Returns
        -------
        ndarray, (B, 2), float64
        """
        basis = spline_basis(crop)
        rows, columns = (basis[pixels[:, axis].astype(int)] for axis in (0, 1))
        offsets = pixels - (crop - 1) / 2
        offsets = offsets + np.einsum("br,bnrc,bc->bn", rows, self.knots, columns)
        places: NDArray[np.float64] = np.einsum("bij,bj->bi", self.matrices, offsets)
        return places


def draw_shapes(
    config: AugmentationConfig, seed: int, crops: NDArray[np.int64], crop: int
) -> Shapes:
    """Draw how crops are bent and turned, from their numbers (B,)."""
    draws = uniform(seed, crops, 8, _SHAPES).T
    turns = np.broadcast_to(np.eye(2), (len(crops), 2, 2))
    if config.flips:
        turns = _quarter_turns((8 * draws[0]).astype(int))
    matrices = turns
    affine, elastic = draws[1] < config.affine, draws[2] < config.elastic
    if affine.any():
        matrices = np.where(affine[:, None, None], _affine(draws[3:7]) @ turns, turns)
    count = spline_basis(crop).shape[1]
    knots = np.zeros((len(crops), 2, count, count))
    if elastic.any():
        noise = uniform(seed, crops[elastic], 2 * count**2, _KNOTS)
        normal = ndtri(np.maximum(noise, 2.0**-54))  # 0 would be infinitely far away
        knots[elastic] = _DISPLACEMENT * normal.reshape(-1, 2, count, count)
    return Shapes(turns, matrices, knots)


def draw_light(
    config: AugmentationConfig, seed: int, crops: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Draw gamma, contrast, brightness, blur (sigma, px) and noise (deviation) of crops.

    Returns
    -------
    ndarray, (B, 5), float64
        1, 1, 0, 0 and 0 where nothing is changed.
    """
    chances, draws = np.split(uniform(seed, crops, 10, _LIGHT).T, 2)
    gamma, contrast, brightness = chances[:3] < config.intensity
    either, is_blurred = chances[3] < config.noise, chances[4] < 0.5
    return np.stack(
        [
            np.where(gamma, _between(_GAMMA, draws[0]), 1.0),
            np.where(contrast, _between(_CONTRAST, draws[1]), 1.0),
            np.where(brightness, _BRIGHTNESS * (2 * draws[2] - 1), 0.0),
            np.where(either & is_blurred, _BLUR[0] + (_BLUR[1] - _BLUR[0]) * draws[3], 0.0),
            np.where(either & ~is_blurred, _NOISE * draws[4], 0.0),
        ],
        axis=1,
    )


def _between(ends: tuple[float, float], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw factors whose logarithms are evenly spread."""
    low, high = np.log(ends)
    factors: NDArray[np.float64] = np.exp(low + (high - low) * draws)
    return factors


def _quarter_turns(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the eight ways to turn by quarters and to mirror, (B, 2, 2)."""
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    turns = [np.linalg.matrix_power(turn, count) for count in range(4)]
    every = np.stack([*turns, *(matrix @ np.diag([1.0, -1.0]) for matrix in turns)])
    chosen: NDArray[np.float64] = every[numbers]
    return chosen


def _affine(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rotations with scale and shear, (B, 2, 2), from (4, B) numbers."""
    angle = _ROTATION * (2 * draws[0] - 1)
    scale = _LARGEST_SCALE ** (2 * draws[1] - 1)
    sine, cosine = scale * np.sin(angle), scale * np.cos(angle)
    rotation = np.stack([cosine, -sine, sine, cosine], axis=1).reshape(-1, 2, 2)
    one = np.ones_like(angle)
    across, along = _SHEAR * (2 * draws[2:4] - 1)
    shear = np.stack([one, across, along, one], axis=1).reshape(-1, 2, 2)
    matrices: NDArray[np.float64] = rotation @ shear
    return matrices


@lru_cache(maxsize=8)
def spline_basis(crop: int) -> NDArray[np.float64]:
    """Return the cubic B-splines over a crop, (crop, splines), knots 32 pixels apart."""
    intervals = max(1, -(-crop // _KNOT_SPACING))
    knots = np.arange(-3, intervals + 4) * _KNOT_SPACING
    basis: NDArray[np.float64] = BSpline.design_matrix(
        np.arange(crop, dtype=float), knots.astype(float), 3
    ).toarray()
    return basis
