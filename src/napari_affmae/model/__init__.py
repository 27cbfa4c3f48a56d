"""The network."""

from napari_affmae.model.mae import AFFMAE
from napari_affmae.model.parts.outputs import Level, MAEOutput
from napari_affmae.model.portable import PortableSegmenter
from napari_affmae.model.presets import PRESETS, preset
from napari_affmae.model.quick.segmenter import QuickFeatures, QuickSegmenter
from napari_affmae.model.reference_state import from_reference_state
from napari_affmae.model.segmenter import AFFSegmenter

__all__ = [
    "AFFMAE",
    "PRESETS",
    "AFFSegmenter",
    "Level",
    "MAEOutput",
    "PortableSegmenter",
    "QuickFeatures",
    "QuickSegmenter",
    "from_reference_state",
    "preset",
]
