"""How well frozen features of a network tell labelled classes apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from affmae_kernels import CropPlan
from napari_affmae.config import IGNORE_INDEX, FinetuneConfig, LabelClass, PretrainConfig
from napari_affmae.data import LabelledCrops, LabelledPair, split_planes
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.compute.seeds import Stream, derived_seed
from napari_affmae.engine.inference.scores import ConfusionMatrix
from napari_affmae.engine.training.image_memory import PoolPlan
from napari_affmae.engine.training.labelled_data import Pairs, normalized_pairs, settle_classes
from napari_affmae.errors import DataError
from napari_affmae.model import AFFMAE
from napari_affmae.model.quick.cells import cell_features

# Each half of the labelled planes gives this many crops, and of them this many cells.
_CROPS = 16
_CELLS = 4096
# A ridge of this share of the mean variance keeps the solution finite.
_RIDGE = 1e-2
# The crops come from the first blocks that fit into it.
_BYTES = 2**28


@dataclass(frozen=True)
class _Cells:
    """Standardised features (n, D) of labelled cells, and their classes (n,)."""

    features: Tensor
    classes: Tensor


class Probe:
    """Classifies cells of labelled images linearly from features that it does not train.

    Half of the labelled planes teach a ridge regression that the other half tests, and
    the other way round. The crops are the same each time, so that scores of one run can
    be compared.

    Parameters
    ----------
    halves : sequence of LabelledCrops
        Crops of two disjoint sets of planes.
    classes : int
        Number of classes.
    """

    def __init__(self, halves: Sequence[LabelledCrops], classes: int) -> None:
        self._classes = classes
        self._crops = [_draw(half) for half in halves]

    @classmethod
    def of(
        cls, pairs: Pairs, config: PretrainConfig, ignore_value: int | None, place: PoolPlan
    ) -> Self:
        """Draw the crops that a pretraining is measured on.

        Parameters
        ----------
        pairs : sequence of (ImageSource, ImageSource)
            Images and their labels.
        config : PretrainConfig
            Settings of the pretraining: crop, channels, normalisation and seed.
        ignore_value : int or None
            Label value that means unknown.
        place : PoolPlan
            Where the run decodes images.

        Raises
        ------
        DataError
            If there are fewer than two classes or two labelled planes.
        UnreadablePairError
            If a file is damaged.
        """
        labelling = FinetuneConfig(
            steps=1,
            crop=config.crop,
            in_channels=config.in_channels,
            ignore_value=ignore_value,
            normalization=config.normalization,
        )
        classes = settle_classes(pairs, labelling, None)
        labelled, usable = normalized_pairs(pairs, labelling, None)
        halves = split_planes(usable, 0.5)
        if not all(any(half) for half in halves):
            raise DataError(
                "the probe needs two labelled planes or images at least: one to learn from and "
                "one to be measured on"
            )
        seed = derived_seed(config.seed, Stream.VALIDATION)
        drawn = (_crops(labelled, half, classes, labelling, seed, place) for half in halves)
        return cls(list(drawn), len(classes))

    def score(self, module: AFFMAE, runtime: Runtime, at_once: int) -> float:
        """Measure the features that the network has now.

        Parameters
        ----------
        module : AFFMAE
            The network.
        runtime : Runtime
            Device and precision.
        at_once : int
            Crops whose features are computed at once.

        Returns
        -------
        float
            Mean IoU over classes of cells, over both halves.
        """
        cells = [self._cells(module, runtime, *half, at_once) for half in self._crops]
        confusion = ConfusionMatrix(self._classes)
        for known, asked in (cells, cells[::-1]):
            answers = _classify(known, asked.features, self._classes)
            confusion.add(asked.classes.numpy(), answers.numpy())
        return confusion.scores([str(number) for number in range(self._classes)]).mean_iou

    def _cells(
        self, module: AFFMAE, runtime: Runtime, images: Tensor, targets: Tensor, at_once: int
    ) -> _Cells:
        patch = module.config.patch_size
        with evaluating(module), runtime.computing():
            parts = [
                cell_features(module.config, module.encoder, module.decoder, part)
                for part in images.split(at_once)
            ]
        features = torch.cat([part.flatten(2).transpose(1, 2).flatten(0, 1) for part in parts])
        classes = _majority(targets, patch, self._classes).flatten()
        labelled = (classes != IGNORE_INDEX).nonzero()[:, 0]
        # Evenly spread, so that every crop has its share.
        chosen = labelled[torch.linspace(0, len(labelled) - 1, min(len(labelled), _CELLS)).long()]
        return _Cells(features[chosen].cpu().double(), classes[chosen].cpu())


def _crops(
    pairs: Sequence[LabelledPair],
    planes: Sequence[Sequence[int]],
    classes: Sequence[LabelClass],
    config: FinetuneConfig,
    seed: int,
    place: PoolPlan,
) -> LabelledCrops:
    return LabelledCrops(
        pairs,
        config.crop,
        classes,
        config.ignore_value,
        planes=planes,
        seed=seed,
        device=place.device,
        capacity=_BYTES,
    )


def _draw(crops: LabelledCrops) -> tuple[Tensor, Tensor]:
    """Cut the crops of a half; its pool is no longer needed then."""
    try:
        for _ in crops.advance(0):
            pass
        plan = crops.plan(0, _CROPS)
        device = crops.cut.pixels.device
        images, targets = crops.cut(CropPlan(*(field.to(device) for field in plan)))
    finally:
        crops.pool.close()
    return images, targets


def _majority(targets: Tensor, patch: int, classes: int) -> Tensor:
    """Give each cell the class of most of its labelled pixels.

    Parameters
    ----------
    targets : Tensor
        (B, H, W) int64.
    patch : int
        Side of a cell, pixels.
    classes : int
        Number of classes.

    Returns
    -------
    Tensor
        (B, cells) int64, `IGNORE_INDEX` where none is labelled.
    """
    height, width = targets.shape[1:]
    beyond = (0, -width % patch, 0, -height % patch)
    padded = F.pad(targets, beyond, value=IGNORE_INDEX)
    counts = torch.stack(
        [F.avg_pool2d((padded == index).float(), patch) for index in range(classes)], dim=-1
    ).flatten(1, 2)
    most = counts.argmax(-1)
    return most.masked_fill(counts.sum(-1) == 0, IGNORE_INDEX)


def _classify(known: _Cells, features: Tensor, classes: int) -> Tensor:
    """Predict classes (n,) by a ridge regression in which each class weighs alike."""
    mean, scale = known.features.mean(0), known.features.std(0).clamp(min=1e-6)
    counts = torch.bincount(known.classes, minlength=classes).clamp(min=1)
    weights = (1 / counts.double())[known.classes, None]
    x = _with_constant((known.features - mean) / scale)
    y = F.one_hot(known.classes, classes).double()
    gram = x.T @ (weights * x)
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution = torch.linalg.solve(gram + ridge, x.T @ (weights * y))
    answers: Tensor = _with_constant((features - mean) / scale) @ solution
    return answers.argmax(1)


def _with_constant(features: Tensor) -> Tensor:
    return F.pad(features, (0, 1), value=1.0)
