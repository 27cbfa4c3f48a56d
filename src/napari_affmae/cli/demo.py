"""The whole job on synthetic images: pretrain, fine-tune, segment, measure, draw."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from napari_affmae.cli.inputs import Pair
from napari_affmae.cli.progress import Reporter, meter
from napari_affmae.cli.report import Example, draw_report
from napari_affmae.cli.scoring import table
from napari_affmae.cli.segmenting import PlaneWriter
from napari_affmae.cli.stopping import follow
from napari_affmae.cli.tiff import PlaneFile
from napari_affmae.config import FinetuneConfig, LabelClass, PretrainConfig, SegmentConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import evaluate, finetune, pretrain, segment
from napari_affmae.engine.run_folder import read_metrics

# Lengths are times, so that a slow computer needs no longer than a fast one.
PRETRAIN_MINUTES = 1.0
FINETUNE_MINUTES = 1.0
_CROP = 128
_BATCH = 4
_PIXEL_NM = 8.0
_CLASSES = (
    LabelClass(value=0, name="cytoplasm", color="#3b3b58"),
    LabelClass(value=1, name="membrane", color="#f4d35e"),
    LabelClass(value=2, name="mitochondrion", color="#ee6352"),
    LabelClass(value=3, name="vesicle", color="#59cd90"),
)
