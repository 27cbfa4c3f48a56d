"""The classes of a segmentation, as a table."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMessageBox,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.config import LabelClass
from napari_affmae.data import default_class

_VALUE, _NAME, _COLOR, _PAINTED = range(4)
_HEADINGS = ("Value", "Name", "Colour", "Painted")
# Unlike a background colour, this is visible in a selected row too.
_SWATCH = Qt.ItemDataRole.DecorationRole
# Role of a name's cell: the name before it was edited.
_FORMER = Qt.ItemDataRole.UserRole
_HEIGHT = 108
_UNKNOWN = 0
_NAMES = {1: "background", 2: "structure"}
_DEFAULTS = tuple(
    default_class(value).model_copy(update={"name": name}) for value, name in _NAMES.items()
)


class ClassTable(QWidget):
    """Value, name, colour and painted pixels of each class.

    Selecting a class chooses it for painting.
    """

    changed = Signal()
    """The classes, their names or colours, or the meaning of 0 have changed."""
    chosen = Signal(int)
    """A class was selected: its value, to paint with."""
    refused = Signal(object)
    """The new name of a class is refused: the exception."""
    removing = Signal(int)
    """A class is about to be removed: its value, to be erased from the labels first."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[int] = Counter()
        self._found: set[int] = set()
        self._proposed: dict[int, LabelClass] = {}
        self._fixed = False
        self.table = QTableWidget(0, len(_HEADINGS))
        self.table.setHorizontalHeaderLabels(list(_HEADINGS))
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(22)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        self.table.setFixedHeight(_HEIGHT)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setToolTip(
            "Select a class to paint with it; double-click its name or colour to change them."
        )
        self.table.itemChanged.connect(self._take_edit)
        self.table.itemSelectionChanged.connect(self._emit_choice)
        self.table.cellDoubleClicked.connect(self._ask_for_color)
        self.add_button = QPushButton("Add class")
        self.remove_button = QPushButton("Remove")
        self.remove_button.setToolTip("Takes the selected class away, and what is painted with it.")
        self.add_button.clicked.connect(self.add)
        self.remove_button.clicked.connect(self.remove_selected)
        self.zero = QComboBox()
        self.zero.addItems(["unknown", "background"])
        self.zero.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.zero.setMinimumContentsLength(6)
        self.zero.setToolTip(
            "unknown: nothing is learned where nothing is painted. background: what is not "
            "painted is a class of its own; for labels that are complete."
        )
        self.zero.currentIndexChanged.connect(self._set_zero)
        row = QHBoxLayout()
        row.addWidget(self.add_button)
        row.addWidget(self.remove_button)
        row.addWidget(QLabel("Unpainted:"))
        row.addWidget(self.zero, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addLayout(row)
        self.set_classes(_DEFAULTS, ignore_value=0)

    @property
    def ignore_value(self) -> int | None:
        """The value that means unknown; None if there is none."""
        return 0 if self.zero.currentIndex() == _UNKNOWN else None

    def classes(self) -> tuple[LabelClass, ...]:
        """Return the classes, by value."""
        return tuple(self._class(row) for row in range(self.table.rowCount()))

    def set_classes(self, classes: Iterable[LabelClass], *, ignore_value: int | None) -> None:
        """Replace the classes, and keep the selected one if it is among the new ones."""
        chosen = self.chosen_value()
        blocker = QSignalBlocker(self.table), QSignalBlocker(self.zero)
        self.zero.setCurrentIndex(_UNKNOWN if ignore_value == 0 else 1 - _UNKNOWN)
        self.table.setRowCount(0)
        for item in sorted(classes, key=lambda item: item.value):
            self._append(item)
        del blocker
        self.changed.emit()
        values = [item.value for item in self.classes() if item.value]
        self.choose(chosen if chosen in values else min(values, default=0))

    def add(self) -> None:
        """Add a class with the next value."""
        value = max((item.value for item in self.classes()), default=0) + 1
        self._append(default_class(value))
        self.changed.emit()
        self.choose(value)

    def take_values(self, values: Iterable[int]) -> None:
        """Replace the default classes, whose names may not fit, by classes of these values.

        Classes that were changed in any way stay.
        """
        found = [value for value in values if value > 0]
        if found and not self._fixed and self.classes() == _DEFAULTS:
            self._found.update(found)
            self.set_classes(map(default_class, found), ignore_value=0)

    def propose(self, classes: Sequence[LabelClass]) -> None:
        """Name and colour the classes as a file of labels does.

        Classes that were changed in any way stay, and what another file said of a value before;
        all stay if a name were given twice.
        """
        present = () if self.classes() == _DEFAULTS else self.classes()
        is_changed = any(
            item not in {default_class(item.value), self._proposed.get(item.value), *_DEFAULTS}
            for item in present
        )
        new = {item.value: item for item in classes} | self._proposed
        proposed = [*new.values(), *(item for item in present if item.value not in new)]
        is_ambiguous = len({item.name for item in proposed}) < len(proposed)
        if not (self._fixed or is_changed or is_ambiguous):
            self._proposed = new
            self.set_classes(proposed, ignore_value=None if 0 in new else self.ignore_value)

    def add_values(self, values: Iterable[int]) -> None:
        """Add classes for values that were found in labels, unless they are fixed."""
        if self._fixed:
            return
        known = {item.value for item in self.classes()}
        missing = [default_class(value) for value in values if value > 0 and value not in known]
        if missing:
            self._found.update(item.value for item in missing)
            self.set_classes([*self.classes(), *missing], ignore_value=self.ignore_value)

    def drop_found(self) -> None:
        """Remove classes that were found in labels, are no longer painted, and were never named."""
        classes = self.classes()
        kept = [
            item
            for item in classes
            if item.value not in self._found
            or self._counts[item.value]
            or item != default_class(item.value)
        ]
        if len(kept) == len(classes) or self._fixed:
            return
        self._found.intersection_update(item.value for item in kept)
        if any(item.value for item in kept):
            self.set_classes(kept, ignore_value=self.ignore_value)
        else:
            self.set_classes(_DEFAULTS, ignore_value=0)

    def remove_selected(self) -> None:
        """Remove the selected class and its strokes, if the user agrees.

        Strokes that remained would bring their class back.
        """
        value = self.chosen_value()
        if not value or not self._may_erase(value):
            return
        self.removing.emit(value)
        if not self._counts[value]:
            kept = [item for item in self.classes() if item.value != value]
            self.set_classes(kept, ignore_value=self.ignore_value)

    def _may_erase(self, value: int) -> bool:
        if not self._counts[value]:
            return True
        name = next(item.name for item in self.classes() if item.value == value)
        buttons = QMessageBox.StandardButton
        answer = QMessageBox.question(
            self,
            "Remove a class",
            f"{self._counts[value]:,} pixels are painted as {name!r}. Removing the class makes "
            f"them {self.zero.currentText()}; Undo in the labels layer brings them back.",
            buttons.Ok | buttons.Cancel,
        )
        return bool(answer == buttons.Ok)

    def set_fixed(self, fixed: bool) -> None:
        """Allow or forbid changes of the classes; they can be selected in any case."""
        triggers = QAbstractItemView.EditTrigger
        self.table.setEditTriggers(
            triggers.NoEditTriggers if fixed else triggers.DoubleClicked | triggers.EditKeyPressed
        )
        for widget in (self.add_button, self.remove_button, self.zero):
            widget.setEnabled(not fixed)
        self._fixed = fixed

    def chosen_value(self) -> int:
        """Return the value of the selected class, or 0."""
        rows = {index.row() for index in self.table.selectedIndexes()}
        return self._class(rows.pop()).value if rows else 0

    def choose(self, value: int) -> None:
        """Select the class that has a value, if there is one."""
        for row, item in enumerate(self.classes()):
            if item.value == value and value != self.chosen_value():
                self.table.selectRow(row)

    def set_color(self, value: int, color: str) -> None:
        """Give a class another colour, ``#rrggbb``."""
        for row, item in enumerate(self.classes()):
            if item.value == value:
                self.table.item(row, _COLOR).setData(_SWATCH, QColor(color))

    def set_counts(self, counts: Counter[int]) -> None:
        """Show how many pixels of each value are painted."""
        self._counts = counts
        blocker = QSignalBlocker(self.table)
        for row, item in enumerate(self.classes()):
            self.table.item(row, _PAINTED).setText(self._painted(item.value))
        del blocker

    def _painted(self, value: int) -> str:
        return f"{self._counts[value]:,}" if value else "the rest"

    def _append(self, item: LabelClass) -> None:
        blocker = QSignalBlocker(self.table)
        row = self.table.rowCount()
        self.table.insertRow(row)
        fixed = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        cells = (str(item.value), item.name, "", self._painted(item.value))
        for column, text in enumerate(cells):
            cell = QTableWidgetItem(text)
            cell.setFlags(fixed | Qt.ItemFlag.ItemIsEditable if column == _NAME else fixed)
            if column in {_VALUE, _PAINTED}:
                cell.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.table.setItem(row, column, cell)
        self.table.item(row, _COLOR).setData(_SWATCH, QColor(item.color))
        self.table.item(row, _NAME).setData(_FORMER, item.name)
        del blocker

    def _class(self, row: int) -> LabelClass:
        value = int(self.table.item(row, _VALUE).text())
        return LabelClass(
            value=value,
            name=self.table.item(row, _NAME).text().strip() or f"class {value}",
            color=self.table.item(row, _COLOR).data(_SWATCH).name(),
        )

    def _set_zero(self) -> None:
        kept = [item for item in self.classes() if item.value]
        if self.ignore_value is None:
            zero = default_class(0)
            if zero.name in {item.name for item in kept}:
                zero = zero.model_copy(update={"name": "unpainted"})
            kept.append(zero)
        self.set_classes(kept, ignore_value=self.ignore_value)

    def _take_edit(self, cell: Any) -> None:
        if cell.column() == _NAME:
            self._settle_name(cell)
        elif cell.column() == _COLOR:
            self.changed.emit()

    def _settle_name(self, cell: QTableWidgetItem) -> None:
        """Show the name that the class has now: its former name if the new one is taken."""
        name, former = self._class(cell.row()).name, cell.data(_FORMER)
        is_taken = sum(item.name == name for item in self.classes()) > 1
        blocker = QSignalBlocker(self.table)
        cell.setText(former if is_taken else name)
        cell.setData(_FORMER, cell.text())
        del blocker
        if is_taken:
            self.refused.emit(
                ValueError(
                    f"Another class is named {name!r} already: {former!r} keeps its name. "
                    "Scores are listed by name, so each class needs its own."
                )
            )
        elif name != former:
            self.changed.emit()

    def _emit_choice(self) -> None:
        value = self.chosen_value()
        if value:
            self.chosen.emit(value)

    def _ask_for_color(self, row: int, column: int) -> None:
        if column != _COLOR or self._fixed:
            return
        item = self._class(row)
        color = QColorDialog.getColor(QColor(item.color), self, f"Colour of {item.name}")
        if color.isValid():
            self.set_color(item.value, color.name())
