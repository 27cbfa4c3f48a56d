"""The command lines that do without napari what the docks do with it."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QLabel,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.config import LabelClass, Settings


def option_words(
    settings: Settings, stored: Settings | None = None, *, without: Iterable[str] = ()
) -> list[str]:
    """Word settings as options, as far as they are not the defaults.

    Parameters
    ----------
    settings : Settings
        The dock's settings.
    stored : Settings, optional
        Those of the run that goes on, which stand in for the defaults.
    without : iterable of str
        Fields that the command does not take.
    """
    words: list[str] = []
    left_out = set(without)
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        default: Any = info.default if stored is None else getattr(stored, name)
        if name in left_out:
            continue
        if isinstance(value, Settings):
            for inner in type(value).model_fields:
                words += _option(inner, getattr(value, inner), getattr(default, inner))
        else:
            words += _option(name, value, default)
    return words


def _option(name: str, value: Any, default: Any) -> list[str]:
    if value == default or value is None:
        return []
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    if isinstance(value, tuple):
        return [flag, ",".join(f"{part:.15g}" for part in value)]
    return [flag, f"{value:.15g}" if isinstance(value, float) else str(value)]


def channel_words(channels: Sequence[int] | None) -> list[str]:
    """Word channels as options; none for all."""
    return [] if channels is None else ["--channels", ",".join(map(str, channels))]


def class_words(classes: Sequence[LabelClass]) -> list[str]:
    """Word classes as options."""
    return [
        word for item in classes for word in ("--class", f"{item.value}={item.name}={item.color}")
    ]


def layer_words(layers: Iterable[Layer]) -> tuple[list[str], list[str]]:
    """Name the files of layers; and say which layers have none and must be saved first."""
    words, notes = [], []
    for layer in layers:
        path = layer.source.path
        if path is None:
            path = f"{layer.name}.tif"
            notes.append(f"Save the layer {layer.name!r} as {path} first: it has no file.")
        words.append(str(path))
    return words, notes


def command_line(command: str, words: Sequence[str], options: Mapping[str, Path | str]) -> str:
    """Put a command together, quoted for a shell."""
    named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["napari-affmae", command, *words, *named])


class CommandDialog(QDialog):
    """Shows the command line that does the same without napari, to be copied.

    Parameters
    ----------
    command : str
        The command.
    notes : sequence of str
        What has to be done first, for instance saving a layer.
    parent : QWidget
        The dock.
    """

    def __init__(self, command: str, notes: list[str], parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)  # else it stays with the dock
        self.setWindowTitle("The same on the command line")
        self.text = QPlainTextEdit(command)
        self.text.setReadOnly(True)
        self.text.setMinimumWidth(520)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        copy = buttons.addButton("Copy", QDialogButtonBox.ButtonRole.ActionRole)
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(command))
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        for note in notes:
            label = QLabel(note)
            label.setWordWrap(True)
            layout.addWidget(label)
        layout.addWidget(buttons)
