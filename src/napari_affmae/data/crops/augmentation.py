"""Random changes to crops: how they are bent, turned, and lit.

Bending resamples once, from true pixels around the crop. All is numpy and scipy
on purpose: transforms made of torch operations would, in every prefetching
thread, start a team of their own on the cores that the model trains on.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_affmae.config import AugmentationConfig

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


@dataclass(frozen=True)
class Geometry:
    """Where a crop's pixels come from, and how it is turned afterwards.

    Attributes
    ----------
    coordinates : ndarray (2, crop, crop), float64, or None
        Row and column of each pixel, relative to the crop's corner; None for
        a straight crop.
    turns : int
        Quarter turns.
    flip : bool
        Whether it is mirrored.
    """

    coordinates: NDArray[np.float64] | None
    turns: int
    flip: bool

    def window(self, crop: int) -> tuple[slice, slice]:
        """Rows and columns to read, relative to the crop's corner."""
        if self.coordinates is None:
            return slice(0, crop), slice(0, crop)
        low = np.floor(self.coordinates.min(axis=(1, 2))).astype(int)
        high = np.ceil(self.coordinates.max(axis=(1, 2))).astype(int) + 1
        return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))

    def bend(self, window: NDArray[Any], crop: int, *, nearest: bool) -> NDArray[Any]:
        """Sample a window that was read as `window` says, and turn the outcome.

        Parameters
        ----------
        window : ndarray, (channels, rows, columns)
            The pixels.
        crop : int
            Side of the crop.
        nearest : bool
            Nearest pixel instead of bilinear.

        Returns
        -------
        ndarray, (channels, crop, crop), of the window's dtype
        """
        if self.coordinates is not None:
            rows, columns = self.window(crop)
            local = self.coordinates - np.array([rows.start, columns.start])[:, None, None]
            window = np.stack(
                [
                    map_coordinates(channel, local, order=0 if nearest else 1, mode="nearest")
                    for channel in window
                ]
            )
        turned = np.rot90(window, self.turns, axes=(1, 2))
        return np.ascontiguousarray(turned[:, :, ::-1] if self.flip else turned)


STRAIGHT = Geometry(None, 0, False)


class Augmentation:
    """Draws and applies random changes, each from the generator it is given.

    Parameters
    ----------
    config : AugmentationConfig
        Probabilities.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self._config = config

    def draw_geometry(self, rng: np.random.Generator, crop: int) -> Geometry:
        """Draw how to bend and turn a crop."""
        affine = rng.random() < self._config.affine
        elastic = rng.random() < self._config.elastic
        turns, flip = 0, False
        if self._config.flips:
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        coordinates = _coordinates(rng, crop, affine, elastic) if affine or elastic else None
        return Geometry(coordinates, turns, flip)

    def relight(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Change brightness, contrast, gamma, blur and noise of (channels, rows, columns)."""
        if rng.random() < self._config.intensity:
            image = _with_gamma(image, float(np.exp(rng.uniform(*np.log(_GAMMA)))))
        if rng.random() < self._config.intensity:
            mean = image.mean(axis=(1, 2), keepdims=True)
            contrast = np.float32(np.exp(rng.uniform(*np.log(_CONTRAST))))
            image = (image - mean) * contrast + mean
        if rng.random() < self._config.intensity:
            image = image + np.float32(rng.uniform(-_BRIGHTNESS, _BRIGHTNESS))
        if rng.random() < self._config.noise:
            image = _blurred_or_noisy(image, rng)
        return image


def _with_gamma(image: NDArray[np.float32], gamma: float) -> NDArray[np.float32]:
    """Raise values to a power, within the range that they span."""
    low = image.min(axis=(1, 2), keepdims=True)
    span = image.max(axis=(1, 2), keepdims=True) - low
    span[span == 0] = 1
    changed: NDArray[np.float32] = ((image - low) / span) ** np.float32(gamma) * span + low
    return changed


def _blurred_or_noisy(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    if rng.random() < 0.5:
        sigma = rng.uniform(*_BLUR)
        blurred: NDArray[np.float32] = gaussian_filter(image, (0, sigma, sigma))
        return blurred
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return image + noise * np.float32(rng.uniform(0, _NOISE))


def _coordinates(
    rng: np.random.Generator, crop: int, affine: bool, elastic: bool
) -> NDArray[np.float64]:
    """Row and column of each pixel of a bent crop, relative to its corner, (2, crop, crop)."""
    centre = (crop - 1) / 2
    offsets = np.arange(crop) - centre
    grid = np.stack(np.meshgrid(offsets, offsets, indexing="ij"))
    if elastic:
        basis = _spline_basis(crop)
        knots = rng.normal(0, _DISPLACEMENT, (2, basis.shape[1], basis.shape[1]))
        # einsum instead of @, which would wake the linear algebra library's threads.
        columns = np.einsum("nij,cj->nic", knots, basis)
        grid += np.einsum("ri,nic->nrc", basis, columns)
    if affine:
        angle = rng.uniform(-_ROTATION, _ROTATION)
        scale = _LARGEST_SCALE ** rng.uniform(-1, 1)
        sine, cosine = np.sin(angle), np.cos(angle)
        shear = np.eye(2) + rng.uniform(-_SHEAR, _SHEAR, (2, 2)) * (1 - np.eye(2))
        matrix = scale * np.array([[cosine, -sine], [sine, cosine]]) @ shear
        grid = matrix[:, :1, None] * grid[0] + matrix[:, 1:, None] * grid[1]
    return grid + centre


@lru_cache(maxsize=8)
def _spline_basis(crop: int) -> NDArray[np.float64]:
    """Cubic B-splines over a crop, (crop, splines): smooth displacement from few numbers."""
    intervals = max(1, -(-crop // _KNOT_SPACING))
    knots = np.arange(-3, intervals + 4) * _KNOT_SPACING
    basis: NDArray[np.float64] = BSpline.design_matrix(
        np.arange(crop, dtype=float), knots.astype(float), 3
    ).toarray()
    return basis
