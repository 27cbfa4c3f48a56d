"""Every setting of the program, with its title, meaning and bounds.

Command-line help and dock forms are built from these fields, and their JSON is
stored with every run and model, so a number is described once.
"""

from napari_affmae.config.base import (
    IGNORE_INDEX,
    MOST_CLASSES,
    MOST_CROP,
    MOST_SEED,
    ORIGIN_NAMESPACE,
    PRESETS,
    RUN_FILE,
    WORTHWHILE_CROPS,
    Device,
    Precision,
    Settings,
)
from napari_affmae.config.images import (
    AugmentationConfig,
    Classes,
    LabelClass,
    NormalizationConfig,
    distinct_classes,
)
from napari_affmae.config.network import ModelConfig
from napari_affmae.config.results import ObjectsConfig, SegmentConfig
from napari_affmae.config.training import (
    FinetuneConfig,
    PretrainConfig,
    QuickConfig,
    TrainingConfig,
)

__all__ = [
    "IGNORE_INDEX",
    "MOST_CLASSES",
    "MOST_CROP",
    "MOST_SEED",
    "ORIGIN_NAMESPACE",
    "PRESETS",
    "RUN_FILE",
    "WORTHWHILE_CROPS",
    "AugmentationConfig",
    "Classes",
    "Device",
    "FinetuneConfig",
    "LabelClass",
    "ModelConfig",
    "NormalizationConfig",
    "ObjectsConfig",
    "Precision",
    "PretrainConfig",
    "QuickConfig",
    "SegmentConfig",
    "Settings",
    "TrainingConfig",
    "distinct_classes",
]
