"""Lists the runs and models in a folder, without loading torch, which takes seconds."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from napari_affmae.config import RUN_FILE, LabelClass
from napari_affmae.engine.store.checkpoints import (
    MODEL_FILE,
    checkpoint_path,
    list_checkpoints,
)
from napari_affmae.engine.store.metadata import model_path, read_metadata, training_facts
from napari_affmae.engine.store.previews import PREVIEWS, latest_preview
from napari_affmae.engine.store.records import (
    ProbeGain,
    TrainingFacts,
    moment,
    parse_measurement,
)
from napari_affmae.engine.store.run_folder import (
    LOCK_FILE,
    METRICS_FILE,
    never_began,
    read_config,
    read_record,
)
from napari_affmae.engine.store.run_length import Length
from napari_affmae.engine.store.run_state import RunState
from napari_affmae.engine.store.starting_weights import starting_weights
from napari_affmae.errors import CheckpointError

MODEL_SUFFIX = ".safetensors"
# Large enough for some thousand steps, so that the last validation is among them.
_TAIL_BYTES = 2**20


@dataclass(frozen=True)
class RunSummary:
    """One run folder or model file.

    Attributes
    ----------
    path : Path
        The run folder or model file.
    name : str
        What the user calls it.
    kind : {"pretrain", "finetune", "quick", "model", "weights"}
        What the run does; ``"model"`` for a single file, and for a folder without
        a record of it; ``"weights"`` for those that come with the program.
    created : datetime
        When the run was started, with time zone.
    preset : str or None
        Size of the network.
    steps : int
        Optimiser steps made.
    total_steps : int or None
        Length of the schedule; None in a run by time.
    finished : bool
        Whether the run has finished; true for a model file.
    resumable : bool
        Whether the run can be resumed: it has not finished and nothing is damaged.
    classes : tuple of LabelClass
        Empty for models that do not segment.
    images : int
        How many images it learned from; 0 if that is not known.
    sources : tuple of str
        Names of the first of them.
    mean_iou : float or None
        Mean IoU on the validation set, for the best or last weights.
    iou : Mapping[str, float]
        IoU by class name; classes that are not in the validation set are left out.
    loss : float or None
        Loss of the last validation.
    probe : ProbeGain or None
        Of a pretraining, what it has added to its features, if it was measured on labels.
    pretrained : str or None
        Name of the model that the run started from.
    in_channels, crop : int
        Channels and side of the network's input; 0 if the run has no record of them.
    has_checkpoint : bool
        Whether there is a checkpoint to go on from; without one a run begins anew.
    crops : int or None
        Crops that it has seen in its own training, if it says so.
    pixel_size : (float, float) or None
        (row, column) in nanometres, if all images that it learned from have the same.
    preview : Path or None
        The newest pictures of a run; see `read_preview`.
    problem : str or None
        Why it cannot be used, for the user to read.
    """

    path: Path
    name: str
    kind: Literal["pretrain", "finetune", "quick", "model", "weights"]
    created: datetime
    preset: str | None = None
    steps: int = 0
    total_steps: int | None = None
    finished: bool = False
    resumable: bool = False
    classes: tuple[LabelClass, ...] = ()
    images: int = 0
    sources: tuple[str, ...] = ()
    mean_iou: float | None = None
    iou: Mapping[str, float] = field(default_factory=dict)
    loss: float | None = None
    probe: ProbeGain | None = None
    pretrained: str | None = None
    in_channels: int = 0
    crop: int = 0
    has_checkpoint: bool = False
    crops: int | None = None
    pixel_size: tuple[float, float] | None = None
    preview: Path | None = None
    problem: str | None = None


def list_runs(folder: Path) -> list[RunSummary]:
    """List the run folders and model files that lie in a folder, newest first.

    What is damaged is listed with its problem. Other files and folders, and
    hidden ones, are left out.

    Parameters
    ----------
    folder : Path
        If it is missing or cannot be read, the list is empty. Subfolders are not searched.
    """
    try:
        paths = list(folder.iterdir())
    except OSError:
        return []
    runs = [
        _summarize_file(path) if path.is_file() else _summarize_run(path)
        for path in paths
        if not path.name.startswith(".") and (is_run(path) or is_model_file(path))
    ]
    return sorted(runs, key=lambda run: (run.created, run.name), reverse=True)


def list_weights() -> list[RunSummary]:
    """List the weights that come with the program, by name."""
    files = starting_weights().values()
    return [replace(_summarize_file(file), kind="weights") for file in files]


def is_run(path: Path) -> bool:
    """Return whether a run was started in a folder."""
    return path.is_dir() and any((path / name).exists() for name in (RUN_FILE, LOCK_FILE))


def is_model_file(path: Path) -> bool:
    """Return whether a path is a file of weights, from this program or another."""
    return path.suffix == MODEL_SUFFIX and path.is_file()


def _summarize_file(path: Path) -> RunSummary:
    facts: dict[str, Any] = {"path": path, "name": path.stem, "kind": "model"}
    facts |= {"created": _modified(path), "finished": True}
    try:
        metadata = read_metadata(path)
        training = training_facts(metadata, path)
    except CheckpointError as error:
        return RunSummary(**facts, problem=str(error))
    if training.date is not None:
        facts["created"] = moment(training.date)
    return RunSummary(
        **facts,
        preset=training.preset,
        steps=training.steps,
        total_steps=training.steps if "steps" in training.model_fields_set else None,
        classes=metadata.classes,
        images=len(training.sources) if training.images is None else training.images,
        sources=tuple(training.sources),
        loss=training.validation_loss,
        pretrained=training.pretrained or training.start,
        crops=training.crops,
        in_channels=metadata.model.in_channels,
        crop=metadata.crop,
        pixel_size=metadata.pixel_size,
        **_scores(training),
    )


def _summarize_run(path: Path) -> RunSummary:
    facts: dict[str, Any] = {
        "path": path,
        "name": path.name,
        "kind": "model",
        "created": _modified(path),
    }
    try:
        facts |= _recorded(path)
        facts |= _measured(path, facts.pop("batch"))
        facts |= _reached(path)
        facts["preview"] = latest_preview(path / PREVIEWS)
    except CheckpointError as error:
        return RunSummary(**facts, problem=str(error))
    except OSError as error:
        return RunSummary(**facts, problem=f"cannot read the run {path}: {error}")
    return RunSummary(**facts, resumable=not facts["finished"])


def _recorded(path: Path) -> dict[str, Any]:
    """Read the settings of a run from its record."""
    if never_began(path):
        raise CheckpointError(
            f"{path} holds a run that is just starting, or ended before its first record; "
            "if it does not continue, delete it"
        )
    record = read_record(path)
    config = read_config(path)
    classes = record.get("classes", ())
    return {
        "kind": record["kind"],
        "created": moment(record["created"]),
        "preset": record.get("preset") or config.preset,
        "total_steps": config.steps,
        "classes": tuple(LabelClass.model_validate(item) for item in classes),
        **_images(record),
        "pretrained": record.get("pretrained") or record.get("start"),
        "in_channels": config.in_channels,
        "crop": config.crop,
        "batch": record["batch"],
    }


def _images(record: Mapping[str, Any]) -> dict[str, Any]:
    """Read of what a run learns."""
    if record.get("images") is not None:
        return {"images": record["images"], "sources": tuple(record.get("sources", ()))}
    # In runs of earlier versions; in fine-tuning, each image is followed by its labels.
    data = record["data"] if isinstance(record["data"], list) else []
    names = tuple(item["name"] for item in data[:: 2 if "classes" in record else 1])
    return {"images": len(names), "sources": names}


def _measured(path: Path, batch: int) -> dict[str, Any]:
    """Read the progress of a run, whose steps see `batch` crops each, from its log."""
    lines = _last_lines(path / METRICS_FILE)
    losses = [line["loss"] for line in lines if line["event"] == "validation"]
    steps = [line["step"] for line in lines if line["event"] == "step"]
    made = max(steps, default=0)
    return {"steps": made, "crops": made * batch, "loss": losses[-1] if losses else None}


def _reached(path: Path) -> dict[str, Any]:
    """Read the results of a run: its last checkpoint and its model."""
    checkpoints = path / "checkpoints"
    saved = list_checkpoints(checkpoints)
    if not saved:
        return {"finished": False}
    state = RunState.read(checkpoint_path(checkpoints, saved[-1]))
    length = Length.of(read_config(path))
    finished = (path / MODEL_FILE).exists() and length.over(state.step, state.elapsed)
    model = model_path(path)
    metadata = read_metadata(model)
    scores = _scores(training_facts(metadata, model))
    return {
        "finished": finished,
        "has_checkpoint": True,
        "pixel_size": metadata.pixel_size,
        **scores,
    }


def _scores(training: TrainingFacts) -> dict[str, Any]:
    return {
        "mean_iou": training.mean_iou,
        "iou": {name: value for name, value in training.iou.items() if value is not None},
        "probe": training.probe,
    }


def _last_lines(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines at the end of a log, which may be long."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")[:-1]
    return [
        parse_measurement(line, f"a line of {path}") for line in (lines[1:] if start else lines)
    ]


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
