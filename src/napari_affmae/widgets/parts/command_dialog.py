"""Command lines that do the same as a dock, without napari."""

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
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
from napari_affmae.engine.store.starting_weights import NOTHING, start_name
from napari_affmae.settings_fields import SettingField, setting_fields


def option_words(
    settings: Settings, stored: Settings | None = None, *, without: Collection[str] = ()
) -> list[str]:
    """Word those settings as options that are not the defaults.

    Parameters
    ----------
    settings : Settings
        The dock's settings.
    stored : Settings, optional
        The settings of the run that goes on, which take the place of the defaults.
    without : collection of str
        Fields that the command does not take.
    """
    words: list[str] = []
    for field in setting_fields(type(settings)):
        value = field.value_in(settings)
        default = field.default if stored is None else field.value_in(stored)
        if field.path[0] not in without and value not in (default, None):
            words += _option(field, value)
    return words


def _option(field: SettingField, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [field.flag if value else field.off_flag]
    parts = value if isinstance(value, tuple) else (value,)
    texts = (f"{part:.15g}" if isinstance(part, float) else str(part) for part in parts)
    return [field.flag, ",".join(texts)]


def channel_words(channels: Sequence[int] | None) -> list[str]:
    """Word channels as options; all channels (None) need no option."""
    return [] if channels is None else ["--channels", ",".join(map(str, channels))]


def class_words(classes: Sequence[LabelClass]) -> list[str]:
    """Word classes as options."""
    return [
        word for item in classes for word in ("--class", f"{item.value}={item.name}={item.color}")
    ]


def layer_words(layers: Iterable[Layer]) -> tuple[list[str], list[str]]:
    """Return the files of layers, and notes on layers that have to be saved first."""
    words, notes = [], []
    for layer in layers:
        path = layer.source.path
        if path is None:
            path = f"{layer.name}.tif"
            notes.append(f"Save the layer {layer.name!r} as {path} first: it has no file.")
        words.append(str(path))
    return words, notes


def start_word(start: Path | None) -> str:
    """Word what a training starts from."""
    return NOTHING if start is None else start_name(start)


def command_line(command: str, words: Sequence[str], options: Mapping[str, Path | str]) -> str:
    """Join a command, its words and its options, with quotes for a shell."""
    named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["napari-affmae", command, *words, *named])


class CommandDialog(QDialog):
    """Shows a command line, which can be copied.

    Parameters
    ----------
    command : str
        The command.
    notes : sequence of str
        What to do first, for instance to save a layer.
    parent : QWidget
        The dock.
    """

    def __init__(self, command: str, notes: list[str], parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        # Without this attribute, a dialog that is closed lives on until the dock is deleted.
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
