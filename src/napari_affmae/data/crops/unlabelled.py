"""Training crops without labels, each a pure function of seed, number and pool."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affmae_kernels import CropPlan
from napari_affmae.config import AugmentationConfig
from napari_affmae.data.crops.augmentation import NONE, draw_shapes
from napari_affmae.data.crops.numbers import uniform
from napari_affmae.data.crops.planning import Cutter, make_plan
from napari_affmae.data.normalization.normalization import NormalizedSource
from napari_affmae.data.pool.blocks import Block, BlockGrid
from napari_affmae.data.pool.loading import Loaded, load_pixels
from napari_affmae.data.pool.pool import Pool, SourceError
from napari_affmae.errors import DataError, UnreadableFileError


class PretrainCrops:
    """Random crops of unlabelled planes.

    Planes are drawn by area; those smaller than the crop are mirrored at their
    edges. A source that breaks is left out from then on, and `left_out` says so.

    Parameters
    ----------
    sources : sequence of NormalizedSource
        All with the same channels.
    crop : int
        Side of a crop, pixels.
    planes : sequence of sequence of int, optional
        For each source the planes to draw from; all by default.
    augmentation : AugmentationConfig, optional
        None for crops as they are.
    seed : int
        Of all random numbers.
    device : torch.device
        Where crops are cut.
    capacity : int
        Bytes of the device's memory for decoded blocks.
    blocks : sequence of int, optional
        Numbers of the blocks to draw from; all by default.

    Raises
    ------
    DataError
        If there is no plane to draw from, or the sources' channels differ.
    ValueError
        If `planes` does not fit the sources.
    """

    def __init__(
        self,
        sources: Sequence[NormalizedSource],
        crop: int,
        *,
        planes: Sequence[Sequence[int]] | None = None,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
        device: torch.device,
        capacity: int,
        blocks: Sequence[int] | None = None,
    ) -> None:
        self._grid = BlockGrid(sources, crop, planes)
        self._config = augmentation or NONE
        self._seed = seed
        self.pool = Pool(
            self._grid,
            self._load,
            range(len(self._grid)) if blocks is None else blocks,
            device,
            capacity,
            seed,
            leave_out=True,
        )
        self.cut = Cutter.of(self.pool, self._config)

    @classmethod
    def fixed(
        cls,
        sources: Sequence[NormalizedSource],
        crop: int,
        count: int,
        *,
        planes: Sequence[Sequence[int]] | None = None,
        seed: int = 0,
        device: torch.device,
    ) -> tuple[Tensor | None, dict[int, SourceError]]:
        """Cut some crops as they are, reading no other blocks than theirs.

        Returns
        -------
        images : Tensor, (count, channels, crop, crop), float32, or None
            On the device; None if no source can be read.
        left_out : dict of int to Exception
            By the numbers of sources that broke, what happened.

        Raises
        ------
        DataError, ValueError
            As the constructor.
        """
        numbers = np.arange(count)
        draws = uniform(seed, numbers, 3)
        left_out: dict[int, SourceError] = {}
        grid = BlockGrid(sources, crop, planes)
        usable = {number for number, chosen in enumerate(grid.planes) if len(chosen)}
        while True:
            chosen = grid.pick(draws[:, 0], left_out)
            blocks = np.unique(chosen)
            crops = cls(
                sources,
                crop,
                planes=planes,
                seed=seed,
                device=device,
                capacity=sys.maxsize,
                blocks=blocks.tolist(),
            )
            with crops.pool as pool, suppress(UnreadableFileError, DataError):
                pool.fill()  # raises where every source is broken; the others may do
            if not crops.left_out:
                place = np.argsort(pool.residents.rows["block"])[np.searchsorted(blocks, chosen)]
                plan = crops._plan(numbers, place, draws[:, 1:])
                (images,) = crops.cut(CropPlan(*(part.to(device) for part in plan)))
                return images, left_out
            left_out |= crops.left_out
            if usable <= left_out.keys():
                return None, left_out

    @property
    def left_out(self) -> dict[int, SourceError]:
        """What happened to the sources that broke, by their numbers."""
        return self.pool.left_out

    def advance(self, first: int) -> Iterator[None]:
        """Take in the blocks that crops are drawn from; see `Pool.advance`."""
        return self.pool.advance(first)

    def plan(self, first: int, count: int) -> CropPlan:
        """Draw crops, whose blocks `advance` took in.

        Parameters
        ----------
        first : int
            Number of the first crop.
        count : int
            How many.

        Returns
        -------
        CropPlan
            On the CPU; `cut` takes it on the pool's device.
        """
        numbers = np.arange(first, first + count)
        ends = self.pool.residents.weight_ends
        draws = uniform(self._seed, numbers, 3)
        chosen = np.searchsorted(ends, draws[:, 0] * ends[-1], side="right")
        return self._plan(numbers, chosen, draws[:, 1:])

    def _plan(
        self, numbers: NDArray[np.int64], chosen: NDArray[np.int64], draws: NDArray[np.float64]
    ) -> CropPlan:
        rows = self.pool.residents.rows[chosen]
        crop = self._grid.crop
        starts = np.minimum(0, rows["size"] - crop) + (draws * rows["starts"]).astype(np.int64)
        shapes = draw_shapes(self._config, self._seed, numbers, crop)
        centres = starts + (crop - 1) / 2
        return make_plan(rows, centres, shapes, self._config, self._seed, numbers)

    def _load(self, block: Block) -> Loaded:
        return Loaded(*load_pixels(self._grid.sources[block.source], block, self.pool.dtype))
