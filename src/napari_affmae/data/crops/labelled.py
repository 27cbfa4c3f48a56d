"""Training crops with labels, each a pure function of seed, number and pool."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from affmae_kernels import CropPlan
from napari_affmae.config import AugmentationConfig, LabelClass
from napari_affmae.data.crops.augmentation import NONE, draw_shapes
from napari_affmae.data.crops.label_survey import LabelSurvey
from napari_affmae.data.crops.numbers import uniform
from napari_affmae.data.crops.planning import Cutter, make_plan
from napari_affmae.data.labels import LabelledPair, naming_pair
from napari_affmae.data.pool.blocks import Block, BlockGrid
from napari_affmae.data.pool.loading import Loaded, load_pixels
from napari_affmae.data.pool.pool import Pool
from napari_affmae.errors import DataError


class LabelledCrops:
    """Random crops of images and their labels.

    Every crop holds labelled pixels: it is drawn around one of them, which bending
    leaves where it is. Beyond a block's edges the image is mirrored and the labels
    ignored. Labels that change are followed by `refresh`.

    Parameters
    ----------
    pairs : sequence of LabelledPair
        All images with the same channels.
    crop : int
        Side of a crop, pixels.
    classes : sequence of LabelClass
        In the order of their indices.
    ignore_value : int or None
        Label value that means not labelled.
    planes : sequence of sequence of int, optional
        For each pair the planes to draw from; all by default.
    augmentation : AugmentationConfig, optional
        None for crops as they are.
    seed : int
        Of all random numbers.
    device : torch.device
        Where crops are cut.
    capacity : int
        Bytes of the device's memory for decoded blocks.

    Attributes
    ----------
    survey : LabelSurvey
        Where labels are, and how many of each class.

    Raises
    ------
    DataError
        If a label has no class, nothing is labelled, or channels differ.
    ValueError
        If `planes` or `classes` do not fit.
    """

    def __init__(
        self,
        pairs: Sequence[LabelledPair],
        crop: int,
        classes: Sequence[LabelClass],
        ignore_value: int | None,
        *,
        planes: Sequence[Sequence[int]] | None = None,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
        device: torch.device,
        capacity: int,
    ) -> None:
        self._pairs = list(pairs)
        self._config = augmentation or NONE
        self._seed = seed
        self._grid = BlockGrid([pair.image for pair in self._pairs], crop, planes)
        chosen = [
            (number, plane)
            for number, numbers in enumerate(self._grid.planes)
            for plane in numbers.tolist()
        ]
        self.survey = LabelSurvey(self._pairs, chosen, classes, ignore_value)
        self._anchors = {
            block: anchors
            for place in chosen
            for block, anchors in self._anchors_of(*place).items()
        }
        if not self._anchors:
            raise DataError("no pixel is labelled: paint some, or check the ignored value")
        self._scheduled = set(self._anchors)
        self._ends: tuple[int, NDArray[np.int64]] | None = None
        self.pool = Pool(
            self._grid,
            self._load,
            sorted(self._anchors),
            device,
            capacity,
            seed,
            later=self._paintable(chosen),
            labelled=True,
        )
        self.cut = Cutter.of(self.pool, self._config)

    def refresh(self) -> bool:
        """Look again at planes whose labels have changed, and copy what changed to the pool.

        Where no pixel is labelled any more, the crops stay where they were.

        Returns
        -------
        bool
            Whether there were any.

        Raises
        ------
        UnreadablePairError
            If a file is damaged.
        """
        changes = self.survey.refresh()
        anchors = dict(self._anchors)
        for change in changes:
            self.pool.patch_labels(
                change.pair, change.plane, change.rows, change.columns, change.indices
            )
            for block in self._grid.of_plane(change.pair, change.plane):
                anchors.pop(block, None)
            anchors.update(self._anchors_of(change.pair, change.plane))
        if anchors:
            self._anchors = anchors
        if changes:
            self._ends = None
        for block in sorted(self._anchors.keys() - self._scheduled):
            self._scheduled.add(block)
            self.pool.bring(block)
        return bool(changes)

    def advance(self, first: int) -> Iterator[None]:
        """Take in the blocks that crops are drawn from; see `Pool.advance`."""
        yield from self.pool.advance(first)
        for number in self.pool.arrived:
            block = self._grid[number]
            if self._pairs[block.source].labels.editable:
                # What was painted after a thread had read the block is not in it.
                place = (block.source, block.plane, block.rows, block.columns)
                self.pool.patch_labels(*place, self.survey.read(*place))
        if not self._anchor_ends[-1]:
            self.pool.bring(min(self._anchors))  # all labels of the blocks here were erased

    def plan(self, first: int, count: int) -> CropPlan:
        """Draw crops, whose blocks `advance` took in; see `PretrainCrops.plan`."""
        numbers = np.arange(first, first + count)
        crop = self._grid.crop
        draws = uniform(self._seed, numbers, 4)
        rows, anchors = self._draw_anchors(draws[:, :2])
        lowest = np.minimum(0, rows["size"] - crop)
        first_start = np.maximum(lowest, anchors - crop + 1)
        last_start = np.minimum(lowest + rows["starts"] - 1, anchors)
        starts = first_start + (draws[:, 2:] * (last_start - first_start + 1)).astype(np.int64)
        shapes = draw_shapes(self._config, self._seed, numbers, crop)
        # The pixel of the crop that shows the anchor, before the crop is bent and after.
        centre = (crop - 1) / 2
        pixels = np.einsum("bji,bj->bi", shapes.turns, anchors - starts - centre) + centre
        centres = anchors - shapes.places(np.rint(pixels), crop)
        return make_plan(rows, centres, shapes, self._config, self._seed, numbers)

    def _draw_anchors(
        self, draws: NDArray[np.float64]
    ) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """Draw a block and a labelled pixel in it, (row, column), for each crop."""
        ends = self._anchor_ends
        rows = self.pool.residents.rows[np.searchsorted(ends, draws[:, 0] * ends[-1], side="right")]
        picked = []
        for block, draw in zip(rows["block"].tolist(), draws[:, 1].tolist(), strict=True):
            anchors = self._anchors[block]
            picked.append(anchors[int(draw * len(anchors))])
        return rows, np.array(picked)

    @property
    def _anchor_ends(self) -> NDArray[np.int64]:
        """Sums of the counts of labelled pixels to draw from, up to and with each block here."""
        residents = self.pool.residents
        if self._ends is None or self._ends[0] != residents.version:
            blocks = residents.rows["block"].tolist()
            counts = [len(self._anchors.get(block, ())) for block in blocks]
            self._ends = residents.version, np.cumsum(counts)
        return self._ends[1]

    def _paintable(self, planes: Sequence[tuple[int, int]]) -> list[int]:
        """List the blocks without labels that may get some."""
        blocks = [
            block
            for pair, plane in planes
            if self._pairs[pair].labels.editable
            for block in self._grid.of_plane(pair, plane)
        ]
        return sorted(set(blocks) - self._scheduled)

    def _anchors_of(self, pair: int, plane: int) -> dict[int, NDArray[np.int64]]:
        """Give each block of a plane the labelled pixels that its crops are drawn around."""
        places = self.survey.anchors(pair, plane)
        if not len(places):
            return {}
        blocks = [self._grid[number] for number in self._grid.of_plane(pair, plane)]
        source = self._grid.sources[pair]
        sizes = np.array([source.height, source.width])
        # Blocks overlap. The pixel belongs to the one in which a crop with it in the middle starts.
        starts = np.clip(places - self._grid.crop // 2, 0, np.maximum(0, sizes - self._grid.crop))
        found = {}
        for block in blocks:
            corner = np.array([block.rows.start, block.columns.start])
            inside = ((starts >= corner) & (starts < corner + block.starts)).all(axis=1)
            if inside.any():
                found[block.number] = places[inside] - corner
        return found

    def _load(self, block: Block) -> Loaded:
        pair = self._pairs[block.source]
        with naming_pair(pair.image.name, pair.labels.name):
            pixels, limits = load_pixels(pair.image, block, self.pool.dtype)
            labels = self.survey.read(block.source, block.plane, block.rows, block.columns)
        return Loaded(pixels, limits, labels)
