"""Seams: whether results change at the borders of blocks or tiles more often than elsewhere."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import zarr
from scipy.ndimage import gaussian_filter
from torch import nn

from napari_affmae.config import NormalizationConfig, ObjectsConfig
from napari_affmae.data import normalize_sources, open_source
from napari_affmae.engine import label_objects, objects_to_file
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.inference.blending import Wanted
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.results.plan import BlockSizes

TILE = 64
_NEAR = 6  # pixels that a seam may be wide
_DEVIATIONS = 4


@dataclass(frozen=True)
class SeamReport:
    """How often neighbours across a cut differ: at borders, and at parallel control cuts.

    `deviation` is that of the mean over as many cuts as there are borders.
    """

    at_borders: float
    elsewhere: float
    deviation: float

    @property
    def seams(self) -> bool:
        return self.at_borders > self.elsewhere + _DEVIATIONS * self.deviation


def seam_report(differ: np.ndarray, axis: int, borders: list[int]) -> SeamReport:
    """Compare cuts, of which number N is between N - 1 and N along an axis.

    Parameters
    ----------
    differ : ndarray of bool
        Whether neighbours along the axis differ; one shorter there than the result.
    """
    others = tuple(n for n in range(differ.ndim) if n != axis % differ.ndim)
    rates = differ.mean(axis=others)
    cuts = np.arange(1, len(rates) + 1)
    at = np.isin(cuts, borders)
    far = np.abs(cuts[:, None] - borders).min(axis=1) > min(_NEAR, np.diff(borders).min() // 2 - 1)
    controls = rates[far]
    deviation = controls.std(ddof=1) / np.sqrt(at.sum())
    return SeamReport(rates[at].mean(), controls.mean(), deviation)


def cut_objects(classes: np.ndarray, numbers: np.ndarray, axis: int) -> np.ndarray:
    """Where neighbours of one class, both in objects, are not in one object."""
    size = numbers.shape[axis]
    low, high = range(size - 1), range(1, size)
    first, second = numbers.take(low, axis), numbers.take(high, axis)
    same = classes.take(low, axis) == classes.take(high, axis)
    return same & (first > 0) & (second > 0) & (first != second)


def changes(labels: np.ndarray, axis: int) -> np.ndarray:
    return np.diff(labels.astype(int), axis=axis) != 0


@pytest.fixture(scope="module")
def classes():
    smooth = gaussian_filter(np.random.default_rng(0).standard_normal((24, 96, 96)), (1, 2, 2))
    return (smooth > 0.2 * smooth.std()).astype(np.uint8)


SIZES = BlockSizes(chunk=16, side=32, depth=6)
BORDERS = {-3: [6, 12, 18], -2: [32, 64], -1: [32, 64]}


@pytest.mark.parametrize("link", ["touch", "overlap"])
def test_objects_are_not_cut_where_blocks_meet(classes, tmp_path, link):
    config = ObjectsConfig(three_d=True, link=link, link_iou=0.4, min_size=0)
    source = open_source(classes, axes="ZYX", name="labels")
    list(objects_to_file(source, (1,), config, tmp_path / "a.zarr", sizes=SIZES))
    numbers = zarr.open_array(tmp_path / "a.zarr" / "0", mode="r")[:]
    assert numbers.max() > 1
    for axis, borders in BORDERS.items():
        report = seam_report(cut_objects(classes, numbers, axis), axis, borders)
        assert not report.seams, (axis, report)
        # Only where objects are linked some touch that are not one.
        assert (report.elsewhere > 0) == (link == "overlap" and axis == -3), (axis, report)


@pytest.mark.parametrize("axis", BORDERS)
def test_the_report_sees_objects_that_are_cut(classes, axis):
    """Each half of the volume by itself, as without joining."""
    config = ObjectsConfig(three_d=True, min_size=0)
    border = BORDERS[axis][0]
    halves = np.split(classes, [border], axis)
    first, second = (label_objects(half, 1, **config.model_dump()) for half in halves)
    numbers = np.concatenate([first, np.where(second, second + first.max(), 0)], axis)
    report = seam_report(cut_objects(classes, numbers, axis), axis, BORDERS[axis])
    assert report.seams


@pytest.fixture(scope="module")
def plane():
    return gaussian_filter(np.random.default_rng(1).standard_normal((400, 400)), 4) * 10


class Leaning(nn.Module):
    """Two classes whose probabilities lean from one corner of a tile to the other."""

    num_classes = 2

    def forward(self, tiles):
        slope = torch.linspace(-1, 1, TILE)
        first = 1.4 * tiles + slope[:, None] + slope
        return torch.cat([first, torch.zeros_like(first)], 1)


@pytest.mark.parametrize(("overlap", "seams"), [(0.25, False), (0.5, False), (0.0, True)])
@pytest.mark.parametrize("axis", [-2, -1])
def test_labels_change_at_tiles_no_more_than_elsewhere(plane, overlap, seams, axis):
    """Without overlap tiles are not blended, and the report sees it."""
    source = open_source(plane, axes="YX", name="plane")
    (normalized,) = normalize_sources([source], NormalizationConfig())
    predictor = Predictor(Leaning(), Runtime(plan_device("cpu")), TILE, overlap, 1)
    grid = predictor.grid_of(normalized)
    bands = predictor.planes(normalized, [0], Wanted(np.array([0, 1], np.uint8)))
    labels = np.concatenate([band.labels for band in bands if band.labels is not None])
    borders = sorted({*grid.rows[1:], *(start + TILE for start in grid.rows[:-1])})
    report = seam_report(changes(labels, axis), axis, borders)
    assert report.elsewhere > 0
    assert report.seams == seams, report
