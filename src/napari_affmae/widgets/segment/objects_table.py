"""A table of measures, to be copied or saved."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QMessageBox,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.engine.results.tables import Table, table_text
from napari_affmae.errors import AffmaeError
from napari_affmae.files import replace_bytes

_HEIGHT = 130


class ObjectsTable(QWidget):
    """Rows of objects; hidden until there are some."""

    chosen = Signal(int)
    """A row, counted from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Table = {}
        self._columns = _Columns(self)
        self.view = QTableView()
        self.view.setModel(self._columns)
        self.view.selectionModel().currentRowChanged.connect(self._tell)
        self.view.setFixedHeight(_HEIGHT)
        self.view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.view.verticalHeader().setVisible(False)
        self.copy_button = QPushButton("Copy")
        self.copy_button.setToolTip("Copies the table, for a spreadsheet.")
        self.copy_button.clicked.connect(self._copy)
        self.save_button = QPushButton("Save CSV ...")
        self.save_button.clicked.connect(self._ask_where)
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy_button)
        buttons.addWidget(self.save_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.view)
        layout.addLayout(buttons)
        self.setVisible(False)

    def show_table(self, table: Table) -> None:
        """Show named columns of one length; none hides."""
        self.table = table
        self._columns.show_table(table)
        self.view.resizeColumnsToContents()
        self.setVisible(bool(table))

    def save(self, path: Path) -> None:
        """Write the table as CSV."""
        replace_bytes(path, table_text(self.table).encode())

    def _tell(self, current: QModelIndex) -> None:
        self.chosen.emit(current.row())

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(table_text(self.table, "\t"))

    def _ask_where(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save the table", "objects.csv", "CSV (*.csv)")
        if not name:
            return
        try:
            self.save(Path(name))
        except (AffmaeError, OSError) as error:
            QMessageBox.warning(self, "Save the table", str(error))


class _Columns(QAbstractTableModel):
    """Columns as Qt shows them: a cell is worded only when it is in view."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._names: list[str] = []
        self._columns: list[NDArray[Any]] = []

    def show_table(self, table: Table) -> None:
        self.beginResetModel()
        self._names, self._columns = list(table), list(table.values())
        self.endResetModel()

    def rowCount(self, _: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        return len(self._columns[0]) if self._columns else 0

    def columnCount(self, _: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        return len(self._columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> str | None:
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        value = self._columns[index.column()][index.row()]
        return f"{value:.4g}" if isinstance(value, np.floating) else str(value)

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> str | None:
        if role != Qt.ItemDataRole.DisplayRole or orientation != Qt.Orientation.Horizontal:
            return None
        return self._names[section]
