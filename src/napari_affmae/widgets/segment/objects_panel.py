"""The settings for finding objects, and the table of those that were found."""

from collections.abc import Generator, Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.config import LabelClass, ObjectsConfig
from napari_affmae.engine.events import Event
from napari_affmae.engine.results.tables import Table, table_text
from napari_affmae.files import replace_bytes
from napari_affmae.widgets.parts.checkable_list import CheckableList
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.parts.forms import SettingsForm, fold
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.segment.job import ObjectsWanted, size_column

_HEIGHT = 60
_VALUE = Qt.ItemDataRole.UserRole
_BACKGROUND = {"background", "unpainted", "outside", "nothing", "rest"}
_DIGITS = 3
# An object that covers more than this part of what was segmented is hardly one.
_TOO_LARGE = 0.25
_FILTER = (
    "Leaves only objects of these sizes in the layer and the table; with the widest limits all "
    "that were found."
)
_NOT_STORED = (
    "These objects lie on the disk, where they keep their numbers: set 'Smallest size' and find "
    "them again."
)


class ObjectsPanel(QWidget):
    """Settings for finding objects, folded, and buttons for the table of the last ones.

    Parameters
    ----------
    corrections : QWidget
        What corrects the last ones; shown below.
    """

    asked = Signal()
    """The user wants objects in the last result."""
    table_asked = Signal()
    """The user wants to see the table of measures."""
    filter_asked = Signal(float, float)
    """The user wants only objects of these sizes."""

    def __init__(self, corrections: QWidget) -> None:
        super().__init__()
        self.wanted_box = QCheckBox("Find objects after segmenting")
        self.wanted_box.setToolTip(
            "Also makes a layer in which each connected piece of the chosen classes is an "
            "object with a number of its own, and measures them."
        )
        self.classes = CheckableList()
        self.classes.setFixedHeight(_HEIGHT)
        self.form = SettingsForm(ObjectsConfig, basic=tuple(ObjectsConfig.model_fields))
        self.now_button = QPushButton("Find in the last result")
        self.now_button.setToolTip("Looks for objects again, without segmenting again.")
        self.now_button.setEnabled(False)
        self.now_button.clicked.connect(self.asked)
        self.table: Table = {}
        self._file: Path | None = None
        self.table_button = QPushButton("Show table")
        self.table_button.setToolTip(
            "Opens napari's table of the objects' measures. A row that is selected there brings "
            "its object into view."
        )
        self.table_button.clicked.connect(self.table_asked)
        self.save_button = QPushButton("Save CSV ...")
        self.save_button.setToolTip("Saves the measures for a spreadsheet.")
        self.save_button.clicked.connect(self._ask_where)
        self._saving = BackgroundJob(self, loads_torch=False)
        self._saving.failed.connect(self._complain)
        self._saving.ended.connect(lambda: self.save_button.setEnabled(True))
        self._found = QWidget()
        below = QVBoxLayout(self._found)
        below.setContentsMargins(0, 0, 0, 0)
        buttons = QHBoxLayout()
        for button in (self.table_button, self.save_button):
            buttons.addWidget(button)
        below.addLayout(self._make_filter())
        below.addLayout(buttons)
        below.addWidget(corrections)
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

    def _make_filter(self) -> QHBoxLayout:
        """Make a row that keeps objects of some sizes."""
        self.low, self.high = QDoubleSpinBox(), QDoubleSpinBox()
        self._unit = QLabel()
        self.filter_button = QPushButton("Keep these sizes")
        self.filter_button.clicked.connect(
            lambda: self.filter_asked.emit(self.low.value(), self.high.value())
        )
        row = QHBoxLayout()
        for widget in (QLabel("Size"), self.low, QLabel("to"), self.high, self._unit):
            row.addWidget(widget)
        row.addWidget(self.filter_button)
        return row

    def offer_sizes(self, table: Table) -> None:
        """Offer to keep objects of some sizes out of all that were found."""
        name = size_column(table)
        sizes = table[name]
        low, high = (float(sizes.min()), float(sizes.max())) if len(sizes) else (0.0, 0.0)
        decimals = 0 if name == "size_px" else _DIGITS - _magnitude(high)
        step = 10.0**-decimals
        for box, value in ((self.low, low - step), (self.high, high + step)):
            box.setDecimals(max(0, decimals))
            box.setRange(0, high + step)
            box.setValue(max(0.0, value))
        self._unit.setText({"size_px": "px", "area_um2": "µm²", "volume_um3": "µm³"}[name])

    def offer(self, classes: Sequence[LabelClass]) -> None:
        """Offer the classes of a model; all but those that stand for the background are checked."""
        self.classes.clear()
        for item in classes:
            row = QListWidgetItem(item.name)
            row.setData(_VALUE, item.value)
            row.setFlags(row.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            is_wanted = item.value and item.name.strip().casefold() not in _BACKGROUND
            state = Qt.CheckState.Checked if is_wanted else Qt.CheckState.Unchecked
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

    def take_table(self, table: Table, file: Path | None = None) -> None:
        """Offer a table of measures; an empty one hides the buttons.

        Parameters
        ----------
        table : Table
            The measures.
        file : Path, optional
            A table on the disk that has all of them, while `table` may have the first alone.
        """
        self.table, self._file = table, file
        self._found.setVisible(bool(table))
        for widget in (self.low, self.high, self.filter_button):
            widget.setEnabled(file is None)
        self.filter_button.setToolTip(_FILTER if file is None else f"{_FILTER} {_NOT_STORED}")

    def save(self, path: Path) -> None:
        """Write the measures as CSV, like the command line does, in the background."""
        table, file = self.table, self._file
        self.save_button.setEnabled(False)
        self._saving.run(lambda: _write(table, path) if file is None else _copy(file, path))

    def _ask_where(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save the table", "objects.csv", "CSV (*.csv)")
        if name:
            self.save(Path(name))

    def _complain(self, error: Exception) -> None:
        QMessageBox.warning(self, "Save the table", in_words(error))

    def judge(self, table: Table, pixels: int) -> str | None:
        """Say what is odd about the objects that were found; None if nothing is.

        Parameters
        ----------
        table : Table
            Their measures.
        pixels : int
            Pixels in which an object can lie: of a plane, or of a volume.
        """
        largest = int(table["size_px"].max(initial=0))
        if largest < _TOO_LARGE * pixels:
            return None
        name = str(table["class"][int(table["size_px"].argmax())])
        return (
            f"One object of {name!r} covers {100 * largest / pixels:.0f} % of what was segmented. "
            f"If {name!r} is the background, uncheck it; if objects touch each other, choose "
            "a 'Separation' above 0, and find them again."
        )

    def lock(self, *, running: bool, result: bool) -> None:
        """Enable the settings if no run is running, and the search if there is a result."""
        self.fold.setEnabled(not running)
        self.now_button.setEnabled(result and not running)


def _write(table: Table, path: Path) -> Generator[Event, None, None]:
    """Write a table as CSV; in a worker's thread."""
    replace_bytes(path, table_text(table).encode())
    yield from ()


def _copy(file: Path, path: Path) -> Generator[Event, None, None]:
    """Copy a table from the disk; in a worker's thread."""
    replace_bytes(path, file.read_bytes())
    yield from ()


def _magnitude(number: float) -> int:
    """Return the power of ten of a number, as a whole number."""
    return int(f"{number:e}".split("e")[1]) if number else 0
