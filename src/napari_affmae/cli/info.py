"""The command that describes this machine, a run, a model or images."""

from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from napari_affmae.cli.inputs import Reading, check_exists, open_images
from napari_affmae.cli.terminal import Terminal, say
from napari_affmae.config import RUN_FILE
from napari_affmae.data import ImageSource, check_sources
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.store.checkpoints import MODEL_FILE, list_checkpoints
from napari_affmae.engine.store.metadata import ModelMetadata, read_metadata
from napari_affmae.engine.store.registry import is_model_file
from napari_affmae.engine.store.run_folder import read_metrics, read_record, versions
from napari_affmae.engine.store.starting_weights import starting_weights

_SETTINGS_SHOWN = ("preset", "crop", "steps", "minutes", "learning_rate", "seed")


def run_info(path: Path | None, axes: str | None) -> None:
    """Print a card to standard output.

    Parameters
    ----------
    path : Path or None
        Run folder, model file, name of starting weights, or images; None for the machine.
    axes : str or None
        Meaning of the images' axes.
    """
    console = Terminal()
    known = starting_weights()
    if path is None:
        names = {"starting weights": ", ".join(known) or "none"}
        _print(console, "napari-affmae", {**versions(), **_devices(), **names})
        return
    path = known.get(str(path), path)
    check_exists(path)
    if (path / RUN_FILE).exists():
        _print(console, f"run {path}", _run_card(path))
        if _has_model(path):
            _print(console, "its model", _model_card(read_metadata(path)))
    elif is_model_file(path):
        _print(console, f"model {path}", _model_card(read_metadata(path)))
    else:
        sources = open_images([path], Reading(axes), Terminal(stderr=True))
        for source in sources:
            _print(console, f"image {source.name}", _source_card(source))
        for finding in check_sources(sources):
            where = f"{finding.source}: " if finding.source else ""
            say(console, f"{finding.level}: {where}{finding.message}")


def _print(console: Console, title: str, card: Mapping[str, str]) -> None:
    title = escape(title)
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for name, value in card.items():
        table.add_row(escape(name), escape(value))
    console.print(table)


def _devices() -> dict[str, str]:
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    plans = {device: plan_device(device) for device in [*devices, "cpu"]}
    cards = {device: f"{plan.words}, {plan.precision}" for device, plan in plans.items()}
    return {**cards, "auto takes": next(iter(cards))}


_PURPOSES = {
    "pretrain": "fine-tuning, quick training",
    "segment": "segmentation",
    "quick": "segmentation, by a head that was trained quickly on frozen features",
}


def _run_card(run: Path) -> dict[str, str]:
    record = read_record(run)
    metrics = read_metrics(run)
    card = {"kind": record["kind"], "started": record["created"]}
    settings = {name: record["config"].get(name) for name in _SETTINGS_SHOWN}
    card["settings"] = ", ".join(f"{name} {v}" for name, v in settings.items() if v is not None)
    for event, title in (("step", "last step"), ("validation", "last validation")):
        lines = [line for line in metrics if line["event"] == event]
        if lines:
            last = lines[-1]
            card[title] = f"step {last['step']}"
            card[title] += "" if last["loss"] is None else f", loss {last['loss']:.4f}"
            if last.get("mean_iou") is not None:
                card[title] += f", mIoU {last['mean_iou']:.3f}"
    steps = list_checkpoints(run / "checkpoints")
    card["checkpoints"] = ", ".join(f"step {step}" for step in steps) or "none"
    return card


def _has_model(run: Path) -> bool:
    return (run / MODEL_FILE).exists() or bool(list_checkpoints(run / "checkpoints"))


def _model_card(metadata: ModelMetadata) -> dict[str, str]:
    model = metadata.model
    card = {
        "for": _PURPOSES[metadata.kind],
        "channels": str(model.in_channels),
        "widths": ", ".join(map(str, model.channels)),
        "blocks": ", ".join(map(str, model.blocks)),
        "crop": f"{metadata.crop} px",
        "normalisation": ", ".join(
            f"{name} {value}" for name, value in metadata.normalization.config
        ),
    }
    if metadata.classes:
        card["classes"] = ", ".join(f"{c.value} {c.name}" for c in metadata.classes)
    return card | {f"training: {name}": str(value) for name, value in metadata.training.items()}


def _source_card(source: ImageSource) -> dict[str, str]:
    size = "unknown" if source.pixel_size is None else "{:g} x {:g} nm".format(*source.pixel_size)
    card = {
        "planes": str(source.n_planes),
        "plane": f"{source.height} x {source.width} (rows x columns)",
        "channels": str(source.n_channels),
        "dtype": str(source.dtype),
        "pixel size": size,
    }
    return card | {f"note {number}": note for number, note in enumerate(source.notes, 1)}
