"""How well strokes are recognised that a light head has not learned from.

Cross-validation by strokes (groups): the strokes of each class are dealt to a few folds, and
for each fold another head learns from the strokes of the others. Pixels of one stroke are
neighbours and nearly the same, so a stroke is never learned from and asked for at once. The
features are those that are kept already; only the small heads are trained.
"""

import copy
import hashlib
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from torch import Tensor

from napari_affmae.config import LabelClass, QuickConfig
from napari_affmae.engine.compute.seeds import Stream, generator, seeded
from napari_affmae.engine.events import HeldOut, StepDone
from napari_affmae.engine.quick.features import FeatureStore
from napari_affmae.engine.quick.head_training import train_head
from napari_affmae.engine.quick.strokes import BLOCK, Block, Samples, pixels_per_block
from napari_affmae.model.quick.segmenter import QuickHead

_FOLDS = 4
# A class of fewer strokes is learned from, but not judged.
_FEWEST = 2
# Of a normal distribution: 90 % lie within so many standard deviations.
_DEVIATIONS = 1.645


@dataclass(frozen=True)
class Strokes:
    """Strokes among samples.

    Attributes
    ----------
    of_sample : ndarray
        (n,) int64, number of the stroke of each sample.
    classes : ndarray
        (strokes,) int64, class index of each stroke.
    planes : ndarray
        (strokes,) int64, a number for the plane of each stroke.
    folds : ndarray
        (strokes,) int64, the fold in which each is held out; -1 for the only one of a class.
    """

    of_sample: NDArray[np.int64]
    classes: NDArray[np.int64]
    planes: NDArray[np.int64]
    folds: NDArray[np.int64]


def find_strokes(blocks: Sequence[Block], seed: int) -> Strokes:
    """Tell the strokes of painted blocks apart, and deal them to folds.

    Pixels of a class that lie close together are one stroke. A stroke's fold depends on the
    place and the seed alone, but that new strokes are dealt in among the others.

    Parameters
    ----------
    blocks : sequence of Block
        From `painted_blocks`.
    seed : int
        Seed of the dealing.
    """
    # Blocks hold some of their pixels: the fewer, the farther apart.
    reach = 2 * BLOCK / math.sqrt(pixels_per_block(len(blocks)))
    classes = np.concatenate([block.classes for block in blocks])
    corners = [np.array([block.rows.start, block.columns.start]) for block in blocks]
    places = np.concatenate(
        [block.painted + corner for block, corner in zip(blocks, corners, strict=True)]
    )
    planes: dict[tuple[int, int], int] = {}
    plane = np.concatenate(
        [
            np.full(
                len(block.classes),
                planes.setdefault((id(block.view.source), block.view.plane), len(planes)),
            )
            for block in blocks
        ]
    )
    of_sample = np.zeros(len(classes), np.int64)
    of_stroke: list[int] = []
    plane_of: list[int] = []
    lots: list[bytes] = []
    for one in range(len(planes)):
        for index in np.unique(classes[plane == one]):
            chosen = np.flatnonzero((plane == one) & (classes == index))
            count, pieces = _pieces(places[chosen], reach)
            of_sample[chosen] = len(of_stroke) + pieces
            for piece in range(count):
                first = places[chosen[pieces == piece]].min(0).tolist()
                lots.append(hashlib.blake2b(repr((seed, one, *first)).encode()).digest())
            of_stroke += [int(index)] * count
            plane_of += [one] * count
    strokes = np.array(of_stroke, np.int64)
    return Strokes(of_sample, strokes, np.array(plane_of, np.int64), _deal(strokes, lots))


def _pieces(places: NDArray[np.int64], reach: float) -> tuple[int, NDArray[np.int64]]:
    """Count and number the groups of places (n, 2), joined by steps of at most `reach` pixels."""
    pairs = KDTree(places).query_pairs(reach, output_type="ndarray")
    near = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(places), len(places)))
    count, pieces = connected_components(near, directed=False)
    return int(count), pieces.astype(np.int64)


def _deal(classes: NDArray[np.int64], lots: Sequence[bytes]) -> NDArray[np.int64]:
    """Deal the strokes of each class to folds in turn, so that no fold has all of a class."""
    folds = np.full(len(classes), -1, np.int64)
    for index in np.unique(classes):
        mine = sorted(np.flatnonzero(classes == index).tolist(), key=lambda number: lots[number])
        if len(mine) >= _FEWEST:
            folds[mine] = np.arange(len(mine)) % _FOLDS
    return folds


def judge_held_out(
    head: QuickHead,
    blocks: Sequence[Block],
    samples: Samples,
    classes: Sequence[LabelClass],
    config: QuickConfig,
    store: FeatureStore,
) -> Generator[StepDone | HeldOut, None, None]:
    """Score heads on strokes that they have not learned from; see `HeldOut`.

    Parameters
    ----------
    head : QuickHead
        Gives the shape, and what was fitted to unpainted features; it does not change.
    blocks : sequence of Block
        What is painted.
    samples : Samples
        Their samples, in the order of the blocks.
    classes : sequence of LabelClass
        In the order of their indices.
    config : QuickConfig
        How a head is trained.
    store : FeatureStore
        For its device.

    Yields
    ------
    StepDone or HeldOut
        A step of a head, counted over all of them, and at last the score.
    """
    strokes = find_strokes(blocks, config.seed)
    judged = np.unique(strokes.classes[strokes.folds >= 0])
    painted = np.unique(strokes.classes)
    alone = tuple(classes[index].name for index in np.setdiff1d(painted, judged))
    if len(judged) < 2:
        yield HeldOut(None, alone=alone)
        return
    right = np.zeros(len(strokes.of_sample), bool)
    for fold in range(int(strokes.folds.max()) + 1):
        asked = torch.from_numpy(strokes.folds[strokes.of_sample] == fold)
        other = copy.deepcopy(head)
        with seeded(config.seed, Stream.HELD_OUT, fold, samples.classes.device):
            other.reset_parameters()
        yield from train_head(
            other,
            _part(samples, ~asked),
            config,
            store,
            generator(config.seed, Stream.HELD_OUT, fold),
            steps=config.steps,
            number=fold * config.steps,
        )
        right[asked.numpy()] = _answers_right(other, _part(samples, asked), store)
    yield _scored(strokes, right, classes, alone)


def _part(samples: Samples, chosen: Tensor) -> Samples:
    here = chosen.to(samples.classes.device)
    return Samples(samples.cells[here], samples.pixels[here], samples.classes[here])


def _answers_right(head: QuickHead, samples: Samples, store: FeatureStore) -> NDArray[np.bool_]:
    """Return which samples are given their class."""
    with store.working(), torch.inference_mode():
        local, joint = head(*head.standardise(samples.cells, samples.pixels))
        answers = torch.logaddexp(local, joint).argmax(-1)
        right: NDArray[np.bool_] = (answers == samples.classes).cpu().numpy()
        return right


def _scored(
    strokes: Strokes,
    right: NDArray[np.bool_],
    classes: Sequence[LabelClass],
    alone: tuple[str, ...],
) -> HeldOut:
    """Average over the pixels of strokes, then over the strokes of classes, then over classes."""
    pixels = np.bincount(strokes.of_sample)
    of_stroke = np.bincount(strokes.of_sample, weights=right) / pixels
    was_asked = strokes.folds >= 0
    by_class, counts = {}, []
    for index in np.unique(strokes.classes[was_asked]):
        mine = of_stroke[was_asked & (strokes.classes == index)]
        by_class[classes[index].name] = float(mine.mean())
        counts.append(len(mine))
    score = float(np.mean(list(by_class.values())))
    # So many strokes, alike in all classes, would tell as much.
    telling = len(counts) ** 2 / sum(1 / count for count in counts)
    low, high = likely_range(score, telling)
    planes = len(np.unique(strokes.planes[was_asked]))
    return HeldOut(score, low, high, int(was_asked.sum()), planes, by_class, alone)


def likely_range(score: float, count: float) -> tuple[float, float]:
    """Return Wilson's interval of 90 % for a part of `count` independent cases.

    A stroke is right in part, which varies less than cases that are right or wrong: the range is
    rather too wide than too narrow.

    Parameters
    ----------
    score : float
        From 0 to 1.
    count : float
        Above 0.
    """
    square = _DEVIATIONS**2
    middle = (count * score + square / 2) / (count + square)
    reach = _DEVIATIONS * math.sqrt(count * score * (1 - score) + square / 4) / (count + square)
    return max(0.0, middle - reach), min(1.0, middle + reach)
