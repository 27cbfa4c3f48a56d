"""Random changes to crops: how they are bent, turned, and lit.

Bending resamples once, from true pixels around the crop, which MONAI's
transforms of finished crops cannot; its intensity transforms do the rest.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates

from napari_affmae.config import AugmentationConfig

_ROTATION = np.pi / 4
_LARGEST_SCALE = 1.25
_SHEAR = 0.1
_KNOT_SPACING = 32
_DISPLACEMENT = 5.0

_BRIGHTNESS = 0.3
_CONTRAST = 0.3
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
        self._threads = threading.local()
        if config.intensity or config.noise:
            self._threads.transforms = _intensity_transforms(config)

    def draw_geometry(self, rng: np.random.Generator, crop: int) -> Geometry:
        """Draw how to bend and turn a crop."""
        affine = rng.random() < self._config.affine
        elastic = rng.random() < self._config.elastic
        turns, flip = (int(rng.integers(4)), bool(rng.integers(2))) if self._config.flips else (0, False)
        coordinates = _coordinates(rng, crop, affine, elastic) if affine or elastic else None
        return Geometry(coordinates, turns, flip)

    def relight(
        self, image: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Change brightness, contrast, gamma, blur and noise of (channels, rows, columns)."""
        if not (self._config.intensity or self._config.noise):
            return image
        # MONAI's transforms hold their random state, so each thread has its own.
        if not hasattr(self._threads, "transforms"):
            self._threads.transforms = _intensity_transforms(self._config)
        transforms = self._threads.transforms
        transforms.set_random_state(seed=int(rng.integers(2**32)))
        return np.asarray(transforms({"image": image})["image"], dtype=np.float32)


def _intensity_transforms(config: AugmentationConfig) -> Any:
    # Imported here because it takes seconds, which only runs with augmentation should pay.
    from monai.transforms import (
        Compose,
        OneOf,
        RandAdjustContrastd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityFixedMeand,
        RandShiftIntensityd,
    )

    key = "image"
    return Compose(
        [
            RandAdjustContrastd(key, prob=config.intensity, gamma=_GAMMA),
            RandScaleIntensityFixedMeand(key, prob=config.intensity, factors=_CONTRAST),
            RandShiftIntensityd(key, prob=config.intensity, offsets=_BRIGHTNESS),
            OneOf(
                [
                    RandGaussianSmoothd(key, prob=config.noise, sigma_x=_BLUR, sigma_y=_BLUR),
                    RandGaussianNoised(key, prob=config.noise, std=_NOISE),
                ]
            ),
        ]
    )


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
        grid += basis @ knots @ basis.T
    if affine:
        angle = rng.uniform(-_ROTATION, _ROTATION)
        scale = _LARGEST_SCALE ** rng.uniform(-1, 1)
        sine, cosine = np.sin(angle), np.cos(angle)
        shear = np.eye(2) + rng.uniform(-_SHEAR, _SHEAR, (2, 2)) * (1 - np.eye(2))
        matrix = scale * np.array([[cosine, -sine], [sine, cosine]]) @ shear
        grid = np.tensordot(matrix, grid, axes=1)
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
