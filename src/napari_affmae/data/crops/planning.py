"""From what was drawn for crops to what `affmae_kernels.cut_crops` carries out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affmae_kernels import CropPlan, cut_crops
from napari_affmae.config import AugmentationConfig
from napari_affmae.data.crops.augmentation import Shapes, draw_light
from napari_affmae.data.crops.numbers import words
from napari_affmae.data.pool.pool import Pool

# A use of random numbers; see `numbers.words`.
_NOISE = 4


def make_plan(
    rows: NDArray[Any],
    centres: NDArray[np.float64],
    shapes: Shapes,
    config: AugmentationConfig,
    seed: int,
    crops: NDArray[np.int64],
) -> CropPlan:
    """Put together where crops come from and how they are changed.

    Parameters
    ----------
    rows : ndarray, (B,)
        Entries of `Residents` of the blocks that they are cut from.
    centres : ndarray, (B, 2), float64
        Where the centre of each crop would lie in its block if nothing displaced
        it (row, column), pixels.
    shapes : Shapes
        How they are bent and turned.
    config : AugmentationConfig
        How their light changes.
    seed : int
        Of all random numbers.
    crops : ndarray, (B,), int64
        Their numbers.

    Returns
    -------
    CropPlan
        On the CPU.
    """
    light = draw_light(config, seed, crops)
    return CropPlan(
        offset=_tensor(rows["offset"], np.int64),
        label_offset=_tensor(rows["label_offset"], np.int64),
        size=_tensor(rows["size"], np.int32),
        matrix=_tensor(shapes.matrices, np.float32),
        shift=_tensor(centres, np.float32),
        knots=_tensor(shapes.knots, np.float32),
        limits=_tensor(rows["limits"], np.float32),
        light=_tensor(light, np.float32),
        key=_tensor(words(seed, crops, 1, _NOISE)[:, 0].view(np.int64), np.int64),
    )


def _tensor(values: NDArray[Any], dtype: type[np.generic]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=dtype, order="C"))


@dataclass(frozen=True)
class Cutter:
    """Cuts planned crops out of a pool, on its device.

    Attributes
    ----------
    pixels : Tensor
        Of the pool.
    labels : Tensor or None
        Of the pool.
    crop : int
        Side of the crops, pixels.
    config : AugmentationConfig
        What can change them, which decides how they are cut.
    """

    pixels: Tensor
    labels: Tensor | None
    crop: int
    config: AugmentationConfig

    @classmethod
    def of(cls, pool: Pool, config: AugmentationConfig) -> "Cutter":
        """Cut from a pool."""
        return cls(pool.pixels, pool.labels, pool.grid.crop, config)

    def __call__(self, plan: CropPlan) -> tuple[Tensor, ...]:
        """Cut; `plan` is on the pool's device, and nothing waits for it.

        Returns
        -------
        tuple of Tensor
            Images (B, channels, crop, crop) float32, and with labels the class
            indices (B, crop, crop) int64.
        """
        images, targets = cut_crops(
            self.pixels,
            plan,
            self.crop,
            labels=self.labels,
            bent=self.config.affine > 0 or self.config.elastic > 0,
            lit=self.config.intensity > 0,
            blurred=self.config.noise > 0,
        )
        return (images,) if targets is None else (images, targets)
