"""Runs as generators of events: pretraining, fine-tuning, segmentation.

Functions are looked up when they are first used, because what they import
(torch, Lightning Fabric) takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_affmae.engine import events

if TYPE_CHECKING:
    from napari_affmae.engine.inference.evaluation import evaluate
    from napari_affmae.engine.inference.objects import label_objects, measure_objects
    from napari_affmae.engine.inference.scores import Scores
    from napari_affmae.engine.inference.segmentation import Segmenter, segment
    from napari_affmae.engine.inference.surviving_tokens import TokenStage, surviving_tokens
    from napari_affmae.engine.inference.uncertainty import uncertainty
    from napari_affmae.engine.quick.training import QuickTraining, QuickView
    from napari_affmae.engine.store.authors_checkpoint import import_checkpoint
    from napari_affmae.engine.store.housekeeping import delete_run, export_model, rename_run
    from napari_affmae.engine.store.metadata import ModelMetadata, read_metadata
    from napari_affmae.engine.store.model_files import load_model
    from napari_affmae.engine.store.registry import RunSummary, list_runs
    from napari_affmae.engine.store.run_folder import read_config, read_metrics, read_record
    from napari_affmae.engine.store.run_names import new_run_path
    from napari_affmae.engine.training.finetuning import finetune
    from napari_affmae.engine.training.planning import measure_plan
    from napari_affmae.engine.training.pretraining import pretrain
    from napari_affmae.engine.wording import describe_plan

__all__ = [
    "ModelMetadata",
    "QuickTraining",
    "QuickView",
    "RunSummary",
    "Scores",
    "Segmenter",
    "TokenStage",
    "delete_run",
    "describe_plan",
    "evaluate",
    "events",
    "export_model",
    "finetune",
    "import_checkpoint",
    "label_objects",
    "list_runs",
    "load_model",
    "measure_objects",
    "measure_plan",
    "new_run_path",
    "pretrain",
    "read_config",
    "read_metadata",
    "read_metrics",
    "read_record",
    "rename_run",
    "segment",
    "surviving_tokens",
    "uncertainty",
]

_MODULES = {
    "inference.uncertainty": ("uncertainty",),
    "inference.evaluation": ("evaluate",),
    "training.finetuning": ("finetune",),
    "store.authors_checkpoint": ("import_checkpoint",),
    "store.housekeeping": ("delete_run", "export_model", "rename_run"),
    "store.metadata": ("ModelMetadata", "read_metadata"),
    "store.model_files": ("load_model",),
    "inference.objects": ("label_objects", "measure_objects"),
    "training.planning": ("measure_plan",),
    "wording": ("describe_plan",),
    "training.pretraining": ("pretrain",),
    "quick.training": ("QuickTraining", "QuickView"),
    "store.registry": ("RunSummary", "list_runs"),
    "store.run_folder": ("read_config", "read_metrics", "read_record"),
    "store.run_names": ("new_run_path",),
    "inference.scores": ("Scores",),
    "inference.segmentation": ("Segmenter", "segment"),
    "inference.surviving_tokens": ("TokenStage", "surviving_tokens"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
