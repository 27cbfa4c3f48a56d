"""A description of a run or model."""

from collections.abc import Generator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QImageReader, QPixmap
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_affmae.config import WORTHWHILE_CROPS
from napari_affmae.engine.events import Event
from napari_affmae.engine.inference.fitting import (
    Subject,
    is_short,
    misfit,
    probe_words,
    start_words,
)
from napari_affmae.engine.inference.pixel_sizes import size_words
from napari_affmae.engine.store.registry import RunSummary
from napari_affmae.widgets.parts.messages import Messages
from napari_affmae.widgets.running.background_job import BackgroundJob

#: Names of the kinds of runs.
KINDS = {
    "pretrain": "pretraining run",
    "finetune": "fine-tuning run",
    "quick": "quick training",
    "model": "model file",
    "weights": "starting weights",
}
# What the pictures of a run show, from left to right.
_PICTURES = {
    "pretrain": ("given", "partly hidden", "filled in by the network", "error"),
    "finetune": ("given", "labels", "prediction"),
}
_MOST_SOURCES = 3


@dataclass(frozen=True)
class _Picture(Event):
    image: QImage


class ModelCard(QWidget):
    """Shows what a run or model learned from, how much it saw, its classes, scores and pictures.

    Below, it warns of what speaks against it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.run: RunSummary | None = None
        """What is described."""
        self.description = QLabel()
        self.description.setWordWrap(True)
        self.picture = QLabel()
        # A picture that asked for its own width would keep the dock from becoming narrower.
        self.picture.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.picture.setVisible(False)
        self.warnings = Messages()
        self._image: QImage | None = None
        self._job = BackgroundJob(self, loads_torch=False)
        self._job.happened.connect(self._take_picture)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for widget in (self.description, self.picture, self.warnings):
            layout.addWidget(widget)

    def text(self) -> str:
        """Return the description, HTML."""
        return str(self.description.text())

    def show_run(self, run: RunSummary | None, subject: Subject | None = None) -> None:
        """Describe a run or model; None hides the card.

        Parameters
        ----------
        run : RunSummary or None
            The run or model.
        subject : Subject, optional
            The image that it is wanted for, to warn if it does not fit.
        """
        self.setVisible(run is not None)
        self.warnings.clear()
        for warning in [] if run is None else _warnings(run, subject):
            self.warnings.add(warning, "warning")
        if run == self.run:
            return
        self.run = run
        self.description.setText("" if run is None else card(run))
        self._job.stop()
        self.picture.setVisible(False)
        if run is not None and run.preview is not None and run.kind in _PICTURES:
            preview, columns = run.preview, len(_PICTURES[run.kind])
            self.picture.setToolTip(f"From left to right: {', '.join(_PICTURES[run.kind])}.")
            self._job.run(lambda: _read(preview, columns))

    def _take_picture(self, event: _Picture) -> None:
        self._image = event.image
        self.picture.setVisible(True)
        self._fit()

    def resizeEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Scale the picture to the width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        if self._image is None:
            return
        size = QSize(self.width(), self._image.height())
        ratio = Qt.AspectRatioMode.KeepAspectRatio
        smooth = Qt.TransformationMode.SmoothTransformation
        pixmap = QPixmap.fromImage(self._image.scaled(size, ratio, smooth))
        self.picture.setPixmap(pixmap)
        self.picture.setFixedHeight(pixmap.height())


def card(run: RunSummary) -> str:
    """Describe a run or model in a few lines of HTML."""
    lines = [f"{KINDS[run.kind]}, {run.created.astimezone():%Y-%m-%d %H:%M}, {_state(run)}"]
    if run.problem is not None:
        return "<br>".join(escape(line) for line in (*lines, run.problem))
    if run.kind == "weights":
        return "<br>".join(escape(line) for line in _shipped(run))
    if run.sources:
        more = run.images - _MOST_SOURCES
        others = f" and {more:,} more" if more > 0 else ""
        lines.append(f"learned from {', '.join(run.sources[:_MOST_SOURCES])}{others}")
    if run.crops:
        lines.append(f"has seen {run.crops:,} crops in {run.steps:,} steps")
    network = [
        None if run.preset is None else f"network {run.preset}",
        _channel_words(run.in_channels) if run.in_channels else None,
        f"crop {run.crop} px" if run.crop else None,
        None if run.pixel_size is None else f"pixels of {size_words(run.pixel_size)}",
    ]
    lines.append(", ".join(filter(None, network)))
    if run.pretrained:
        lines.append(f"started from {start_words(run)}")
    lines.append(probe_words(run))
    if run.loss is not None:
        lines.append(f"loss on held-out images {run.loss:.4f}")
    if run.mean_iou is not None:
        lines.append(f"overlap with held-out labels (mean IoU) {run.mean_iou:.3f}")
    text = "<br>".join(escape(line) for line in lines if line)
    return f"{text}<br>{_swatches(run)}" if run.classes else text


def _shipped(run: RunSummary) -> list[str]:
    """Describe weights that come with the program: the files that they saw say little to users."""
    seen = "" if run.crops is None else f": {run.crops:,} crops of {run.images:,} images"
    return [
        f"comes with this program, and has learned from electron microscopy in general{seen}",
        f"network {run.preset}, {_channel_words(run.in_channels)}",
    ]


def _warnings(run: RunSummary, subject: Subject | None) -> list[str]:
    """Say what speaks against a run or model."""
    found = []
    if run.problem is None and is_short(run):
        before = start_words(run) if run.pretrained else "a network that has learned nothing"
        found.append(
            f"It has seen {run.crops:,} crops, and pretraining begins to help at some "
            f"{WORTHWHILE_CROPS:,}: it may be no better than {before}. "
            "Resume it for longer, or choose another."
        )
    reason = None if subject is None else misfit(run, subject)
    if reason is not None:
        found.append(f"It may not fit {subject.name if subject else ''}: {reason}.")
    return found


def _channel_words(count: int) -> str:
    return f"{count} channel{'s' * (count > 1)}"


def _state(run: RunSummary) -> str:
    """Describe how far a run is."""
    if run.problem is not None:
        return "cannot be used"
    of = f" of {run.total_steps}" if run.total_steps else ""
    if not run.finished:
        return f"not finished, {run.steps}{of} steps"
    # A model that was imported or trained on strokes does not record its steps.
    return f"finished, {run.steps} steps" if run.steps else "ready"


def _swatches(run: RunSummary) -> str:
    parts = []
    for item in run.classes:
        score = f" {run.iou[item.name]:.2f}" if item.name in run.iou else ""
        name = escape(f"{item.value} {item.name}{score}").replace(" ", "&nbsp;")
        parts.append(f'<span style="color:{item.color}">&#9632;</span>&nbsp;{name}')
    return " &nbsp; ".join(parts)


def _read(preview: Path, columns: int) -> Generator[_Picture, None, None]:
    """Read the pictures of one crop, the first row; Qt refuses files that would take much memory.

    A file that cannot be read gives no picture: the description stands without it.
    """
    reader = QImageReader(str(preview))
    size = reader.size()
    if size.isValid():
        reader.setClipRect(QRect(0, 0, size.width(), size.width() // columns))
        image = reader.read()
        if not image.isNull():
            yield _Picture(image)
