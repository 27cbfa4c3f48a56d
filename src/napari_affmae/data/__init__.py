"""Arrays in, tensors out: sources, normalisation, crops, labels and checks.

The names below are imported when they are first used: file formats, torch and
scikit-image take seconds that a program's start should not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_affmae.data.checks import check_pairs, check_sources, require_channels
    from napari_affmae.data.crops.labelled import LabelledCrops
    from napari_affmae.data.crops.loader import iterate_batches
    from napari_affmae.data.crops.splits import split_planes
    from napari_affmae.data.crops.unlabelled import PretrainCrops
    from napari_affmae.data.discovery import Found, Skipped, find_pairs, find_sources
    from napari_affmae.data.formats.opening import open_source
    from napari_affmae.data.formats.recipe import SUFFIXES
    from napari_affmae.data.image_checks import Finding
    from napari_affmae.data.label_grid import labelled_squares
    from napari_affmae.data.labels import (
        LabelEncoder,
        LabelledPair,
        count_values,
        default_class,
        default_classes,
        labelled_planes,
        naming_pair,
        read_labels,
    )
    from napari_affmae.data.normalization.normalization import NormalizedSource, normalize_sources
    from napari_affmae.data.normalization.record import NormalizationRecord, SourceStatistics
    from napari_affmae.data.samples import fetch_real_sample, real_sample, synthetic_sample
    from napari_affmae.data.sources.source import ImageSource
    from napari_affmae.data.sources.windows import window
    from napari_affmae.data.synthetic import SYNTHETIC_CLASSES, synthetic_em

_MODULES = {
    "checks": ("check_pairs", "check_sources", "require_channels"),
    "image_checks": ("Finding",),
    "crops.unlabelled": ("PretrainCrops",),
    "discovery": ("Found", "Skipped", "find_pairs", "find_sources"),
    "crops.labelled": ("LabelledCrops",),
    "label_grid": ("labelled_squares",),
    "labels": (
        "LabelEncoder",
        "LabelledPair",
        "count_values",
        "default_class",
        "default_classes",
        "labelled_planes",
        "naming_pair",
        "read_labels",
    ),
    "crops.loader": ("iterate_batches",),
    "normalization.normalization": ("NormalizedSource", "normalize_sources"),
    "normalization.record": ("NormalizationRecord", "SourceStatistics"),
    "formats.opening": ("open_source",),
    "formats.recipe": ("SUFFIXES",),
    "samples": ("fetch_real_sample", "real_sample", "synthetic_sample"),
    "sources.source": ("ImageSource",),
    "crops.splits": ("split_planes",),
    "synthetic": ("SYNTHETIC_CLASSES", "synthetic_em"),
    "sources.windows": ("window",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "SUFFIXES",
    "SYNTHETIC_CLASSES",
    "Finding",
    "Found",
    "ImageSource",
    "LabelEncoder",
    "LabelledCrops",
    "LabelledPair",
    "NormalizationRecord",
    "NormalizedSource",
    "PretrainCrops",
    "Skipped",
    "SourceStatistics",
    "check_pairs",
    "check_sources",
    "count_values",
    "default_class",
    "default_classes",
    "fetch_real_sample",
    "find_pairs",
    "find_sources",
    "iterate_batches",
    "labelled_planes",
    "labelled_squares",
    "naming_pair",
    "normalize_sources",
    "open_source",
    "read_labels",
    "real_sample",
    "require_channels",
    "split_planes",
    "synthetic_em",
    "synthetic_sample",
    "window",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
