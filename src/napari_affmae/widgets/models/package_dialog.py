"""The dialog that exports a model as a package for other programs."""

from collections.abc import Generator
from pathlib import Path

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QWidget,
)

from napari_affmae.engine import events as ev
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.running.background_job import BackgroundJob

_LICENSES = ("", "CC-BY-4.0", "CC0-1.0", "BSD-3-Clause", "MIT")


class PackageDialog(QDialog):
    """Asks who made a model and under which licence it is, exports it, and shows how far it is.

    Parameters
    ----------
    model : Path
        Run folder or model file.
    target : Path
        The package; a file that is there is replaced.
    parent : QWidget
        The dock.
    """

    def __init__(self, model: Path, target: Path, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export for other programs")
        self._model, self._target = model, target
        self.authors = QLineEdit()
        self.authors.setPlaceholderText("names, with commas between them")
        self.license = QComboBox()
        self.license.setEditable(True)
        self.license.addItems(list(_LICENSES))
        self.graphs = QCheckBox("TorchScript and ONNX too")
        self.graphs.setChecked(True)
        self.graphs.setToolTip("They take a minute; programs need no napari-affmae to run them.")
        self.state = QLabel(
            "The middle of a training image goes into the package, if it is still there."
        )
        self.state.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setVisible(False)
        self._form = QWidget()
        form = QFormLayout(self._form)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Authors", self.authors)
        form.addRow("Licence (SPDX)", self.license)
        form.addRow(self.graphs)
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.ok_button = buttons.button(QDialogButtonBox.StandardButton.Ok)
        self.ok_button.setText("Export")
        self.cancel_button = buttons.button(QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self.export)
        buttons.rejected.connect(self.reject)
        layout = QFormLayout(self)
        for widget in (self._form, self.state, self.bar, buttons):
            layout.addRow(widget)
        self._job = BackgroundJob(self)
        self._job.happened.connect(self._take)
        self._job.failed.connect(self._fail)

    def export(self) -> None:
        """Start the export; the dialog closes when it is complete."""
        names = [name.strip() for name in self.authors.text().split(",")]
        authors = [name for name in names if name]
        license_id = self.license.currentText().strip() or None
        graphs = self.graphs.isChecked()
        self._set_running(True)
        self._job.run(
            lambda: _export(self._model, self._target, authors, license_id, graphs=graphs)
        )

    def reject(self) -> None:
        """Close, and stop an export that is running after its step."""
        self._job.stop()
        super().reject()

    def _set_running(self, running: bool) -> None:
        self._form.setEnabled(not running)
        self.ok_button.setEnabled(not running)
        self.bar.setVisible(running)

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.ExportStep():
                self.bar.setRange(0, event.total)
                self.bar.setValue(event.done)
                self.state.setText(f"{event.doing} ...")
            case ev.Exported():
                self.accept()

    def _fail(self, error: Exception) -> None:
        self._set_running(False)
        self.state.setText(in_words(error))


def _export(
    model: Path, target: Path, authors: list[str], license_id: str | None, *, graphs: bool
) -> Generator[ev.Event, None, None]:
    from napari_affmae.engine import export_bioimageio

    yield from export_bioimageio(
        model, target, authors=authors, license_id=license_id, graphs=graphs, overwrite=True
    )
