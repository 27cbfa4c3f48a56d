"""A description of a run or model."""

from html import escape
from pathlib import Path

from qtpy.QtWidgets import QLabel

from napari_affmae.engine.store.checkpoints import MODEL_FILE
from napari_affmae.engine.store.registry import RunSummary

#: Names of the kinds of runs.
KINDS = {
    "pretrain": "pretraining run",
    "finetune": "fine-tuning run",
    "quick": "quick training",
    "model": "model file",
}


class ModelCard(QLabel):
    """Shows the classes with their colours, the training data, the date and the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)

    def show_run(self, run: RunSummary | None) -> None:
        """Describe a run or model; None hides the card."""
        self.setText("" if run is None else card(run))
        self.setVisible(run is not None)


def card(run: RunSummary) -> str:
    """Describe a run or model in a few lines of HTML."""
    lines = [f"{KINDS[run.kind]}, {run.created.astimezone():%Y-%m-%d %H:%M}, {_state(run)}"]
    if run.problem is not None:
        return "<br>".join(escape(line) for line in (*lines, run.problem))
    network = [
        None if run.preset is None else f"preset {run.preset}",
        f"{run.in_channels} channel{'s' * (run.in_channels > 1)}" if run.in_channels else None,
        f"crop {run.crop} px" if run.crop else None,
    ]
    lines.append(", ".join(filter(None, network)))
    if run.sources:
        more = f" and {run.images - 3:,} more" if run.images > 3 else ""
        lines.append(f"learned from {', '.join(run.sources[:3])}{more}")
    if run.pretrained:
        lines.append(f"started from {short_name(Path(run.pretrained))}")
    if run.loss is not None:
        lines.append(f"validation loss {run.loss:.4f}")
    if run.mean_iou is not None:
        lines.append(f"mean IoU {run.mean_iou:.3f}")
    text = "<br>".join(escape(line) for line in lines if line)
    return f"{text}<br>{_swatches(run)}" if run.classes else text


def _state(run: RunSummary) -> str:
    """Describe how far a run is."""
    if run.problem is not None:
        return "cannot be used"
    of = f" of {run.total_steps}" if run.total_steps else ""
    if not run.finished:
        return f"not finished, {run.steps}{of} steps"
    # A model that was imported or trained on strokes does not record its steps.
    return f"finished, {run.steps} steps" if run.steps else "ready"


def short_name(model: Path) -> str:
    """Name a run by its folder, a model by its file."""
    return (
        model.parent.name if model.name == MODEL_FILE else model.name.removesuffix(".safetensors")
    )


def _swatches(run: RunSummary) -> str:
    parts = []
    for item in run.classes:
        score = f" {run.iou[item.name]:.2f}" if item.name in run.iou else ""
        name = escape(f"{item.value} {item.name}{score}").replace(" ", "&nbsp;")
        parts.append(f'<span style="color:{item.color}">&#9632;</span>&nbsp;{name}')
    return " &nbsp; ".join(parts)
