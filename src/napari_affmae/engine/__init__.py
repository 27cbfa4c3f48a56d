"""Runs as generators of events: pretraining, fine-tuning, segmentation.

Functions are looked up when they are first used, because what they import
(torch, Lightning Fabric, MONAI) takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_affmae.engine import events

if TYPE_CHECKING:
    from napari_affmae.engine.entropy import uncertainty
    from napari_affmae.engine.evaluation import evaluate
    from napari_affmae.engine.finetuning import finetune
    from napari_affmae.engine.foreign import import_checkpoint
    from napari_affmae.engine.model_files import ModelMetadata, load_model, read_metadata
    from napari_affmae.engine.pretraining import pretrain
    from napari_affmae.engine.quick import QuickTraining, View
    from napari_affmae.engine.run_folder import read_config, read_metrics, read_record
    from napari_affmae.engine.scores import Scores
    from napari_affmae.engine.segmentation import segment

__all__ = [
    "ModelMetadata",
    "QuickTraining",
    "Scores",
    "View",
    "evaluate",
    "events",
    "finetune",
    "import_checkpoint",
    "load_model",
    "pretrain",
    "read_config",
    "read_metadata",
    "read_metrics",
    "read_record",
    "segment",
    "uncertainty",
]

_MODULES = {
    "ModelMetadata": "model_files",
    "QuickTraining": "quick",
    "Scores": "scores",
    "View": "quick",
    "evaluate": "evaluation",
    "finetune": "finetuning",
    "import_checkpoint": "foreign",
    "load_model": "model_files",
    "pretrain": "pretraining",
    "read_config": "run_folder",
    "read_metadata": "model_files",
    "read_metrics": "run_folder",
    "read_record": "run_folder",
    "segment": "segmentation",
    "uncertainty": "entropy",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
