"""The settings for finding objects, and the table of those that were found."""

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.config import LabelClass, ObjectsConfig
from napari_affmae.engine.results.tables import Table, table_text
from napari_affmae.errors import AffmaeError
from napari_affmae.files import replace_bytes
from napari_affmae.widgets.parts.forms import SettingsForm, fold
from napari_affmae.widgets.segment.job import ObjectsWanted

_HEIGHT = 60
_VALUE = Qt.ItemDataRole.UserRole


class ObjectsPanel(QWidget):
    """Settings for finding objects, folded, and buttons for the table of the last ones."""

    asked = Signal()
    """The user wants objects in the last result."""
    table_asked = Signal()
    """The user wants to see the table of measures."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted_box = QCheckBox("Find objects after segmenting")
        self.wanted_box.setToolTip(
            "Also makes a layer in which each connected piece of the chosen classes is an "
            "object with a number of its own, and measures them."
        )
        self.classes = QListWidget()
        self.classes.setFixedHeight(_HEIGHT)
        self.form = SettingsForm(ObjectsConfig, basic=tuple(ObjectsConfig.model_fields))
        self.now_button = QPushButton("Find in the last result")
        self.now_button.setToolTip("Looks for objects again, without segmenting again.")
        self.now_button.setEnabled(False)
        self.now_button.clicked.connect(self.asked)
        self.table: Table = {}
        self.table_button = QPushButton("Show table")
        self.table_button.setToolTip(
            "Opens napari's table of the objects' measures. A row that is selected there brings "
            "its object into view."
        )
        self.table_button.clicked.connect(self.table_asked)
        self.save_button = QPushButton("Save CSV ...")
        self.save_button.setToolTip("Saves the measures for a spreadsheet.")
        self.save_button.clicked.connect(self._ask_where)
        self._found = QWidget()
        buttons = QHBoxLayout(self._found)
        buttons.setContentsMargins(0, 0, 0, 0)
        for button in (self.table_button, self.save_button):
            buttons.addWidget(button)
        self.take_table({})
        folded = QWidget()
        inside = QVBoxLayout(folded)
        inside.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.wanted_box,
            QLabel("Classes whose objects are of interest"),
            self.classes,
            self.form,
            self.now_button,
        ):
            inside.addWidget(widget)
        self.fold = fold("Objects")
        self.fold.addWidget(folded)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.fold)
        layout.addWidget(self._found)

    def offer(self, classes: Sequence[LabelClass]) -> None:
        """Offer the classes of a model; all but 0 are checked."""
        self.classes.clear()
        for item in classes:
            row = QListWidgetItem(item.name)
            row.setData(_VALUE, item.value)
            row.setFlags(row.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            state = Qt.CheckState.Checked if item.value else Qt.CheckState.Unchecked
            row.setCheckState(state)
            self.classes.addItem(row)

    def values(self) -> tuple[int, ...]:
        """Return the chosen classes."""
        rows = [self.classes.item(index) for index in range(self.classes.count())]
        return tuple(
            int(row.data(_VALUE)) for row in rows if row.checkState() == Qt.CheckState.Checked
        )

    def wanted(self) -> ObjectsWanted:
        """Return the objects to find.

        Raises
        ------
        ValueError
            If a setting is not valid, or no class is chosen.
        """
        values = self.values()
        if not values:
            raise ValueError("no class is chosen: check at least one whose objects to find")
        return ObjectsWanted(values, self.form.build())

    def take_table(self, table: Table) -> None:
        """Offer a table of measures; an empty one hides the buttons."""
        self.table = table
        self._found.setVisible(bool(table))

    def save(self, path: Path) -> None:
        """Write the measures as CSV, like the command line does.

        Raises
        ------
        UnwritableError
            If the file cannot be written.
        """
        replace_bytes(path, table_text(self.table).encode())

    def _ask_where(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save the table", "objects.csv", "CSV (*.csv)")
        if not name:
            return
        try:
            self.save(Path(name))
        except (AffmaeError, OSError) as error:
            QMessageBox.warning(self, "Save the table", str(error))

    def lock(self, *, running: bool, result: bool) -> None:
        """Enable the settings if no run is running, and the search if there is a result."""
        self.fold.setEnabled(not running)
        self.now_button.setEnabled(result and not running)
