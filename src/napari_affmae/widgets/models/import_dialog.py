"""The dialog for importing a checkpoint."""

from pathlib import Path

from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

from napari_affmae.engine.store.run_names import check_name

_TASKS = {"pretraining, to be fine-tuned": "pretrain", "segmentation": "segment"}


class ImportDialog(QDialog):
    """A checkpoint of the paper's own program, its task, and the model's name.

    Parameters
    ----------
    folder : Path
        The folder for the model file.
    parent : QWidget
        The dock.
    """

    def __init__(self, folder: Path, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Import a checkpoint")
        self._folder = folder
        self.file = QLineEdit()
        self.file.setMinimumWidth(320)
        browse = QPushButton("...")
        browse.clicked.connect(self._browse)
        line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.file)
        row.addWidget(browse)
        self.task = QComboBox()
        self.task.addItems(list(_TASKS))
        self.name = QLineEdit()
        self.problem = QLabel()
        self.problem.setWordWrap(True)
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.ok_button = buttons.button(QDialogButtonBox.StandardButton.Ok)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        form = QFormLayout(self)
        form.addRow("Checkpoint (.pth or .safetensors)", line)
        form.addRow("It was trained for", self.task)
        form.addRow("Name of the model", self.name)
        form.addRow(self.problem)
        form.addRow(buttons)
        self.file.textChanged.connect(lambda text: self.name.setText(Path(text).stem))
        self.name.textChanged.connect(self._check)
        self.file.textChanged.connect(self._check)
        self._check()

    def chosen(self) -> tuple[Path, Path, str]:
        """Return the checkpoint, the model file to write, and the task."""
        out = self._folder / f"{self.name.text().strip()}.safetensors"
        return Path(self.file.text().strip()), out, _TASKS[self.task.currentText()]

    def _check(self) -> None:
        problem = self._find_problem()
        self.problem.setText(problem)
        self.ok_button.setEnabled(not problem)

    def _find_problem(self) -> str:
        checkpoint, out, _ = self.chosen()
        if not checkpoint.is_file():
            return "Choose a checkpoint file."
        try:
            check_name(self.name.text().strip())
        except ValueError as error:
            return str(error)
        return f"{out} already exists; choose another name." if out.exists() else ""

    def _browse(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "A checkpoint", "", "Checkpoints (*.pth *.pt *.safetensors)"
        )
        if name:
            self.file.setText(name)
