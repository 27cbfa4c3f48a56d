"""Runs as generators of events: pretraining, fine-tuning, segmentation.

Functions are looked up when they are first used, because what they import
(torch, Lightning Fabric) takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_affmae.engine import events

if TYPE_CHECKING:
    from napari_affmae.engine.entropy import uncertainty
    from napari_affmae.engine.evaluation import evaluate
    from napari_affmae.engine.finetuning import finetune
    from napari_affmae.engine.foreign import import_checkpoint
    from napari_affmae.engine.housekeeping import delete_run, export_model, rename_run
    from napari_affmae.engine.metadata import ModelMetadata, read_metadata
    from napari_affmae.engine.model_files import load_model
    from napari_affmae.engine.objects import label_objects, measure_objects
    from napari_affmae.engine.planning import describe_plan, measure_plan
    from napari_affmae.engine.pretraining import pretrain
    from napari_affmae.engine.quick import QuickTraining, View
    from napari_affmae.engine.registry import RunSummary, list_runs
    from napari_affmae.engine.run_folder import read_config, read_metrics, read_record
    from napari_affmae.engine.run_names import new_run_path
    from napari_affmae.engine.scores import Scores
    from napari_affmae.engine.segmentation import segment
    from napari_affmae.engine.tokens import TokenStage, surviving_tokens

__all__ = [
    "ModelMetadata",
    "QuickTraining",
    "RunSummary",
    "Scores",
    "TokenStage",
    "View",
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
    "ModelMetadata": "metadata",
    "RunSummary": "registry",
    "Scores": "scores",
    "TokenStage": "tokens",
    "delete_run": "housekeeping",
    "describe_plan": "planning",
    "QuickTraining": "quick",
    "View": "quick",
    "evaluate": "evaluation",
    "export_model": "housekeeping",
    "finetune": "finetuning",
    "import_checkpoint": "foreign",
    "label_objects": "objects",
    "list_runs": "registry",
    "load_model": "model_files",
    "measure_objects": "objects",
    "measure_plan": "planning",
    "new_run_path": "run_names",
    "pretrain": "pretraining",
    "read_config": "run_folder",
    "read_metadata": "metadata",
    "read_metrics": "run_folder",
    "read_record": "run_folder",
    "rename_run": "housekeeping",
    "segment": "segmentation",
    "surviving_tokens": "tokens",
    "uncertainty": "entropy",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
