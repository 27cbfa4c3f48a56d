"""Objects instead of classes: which ones, and what was found."""

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.config import LabelClass, ObjectsConfig
from napari_affmae.widgets.parts.forms import SettingsForm, fold
from napari_affmae.widgets.segment.job import ObjectsWanted
from napari_affmae.widgets.segment.objects_table import ObjectsTable

_HEIGHT = 60
_VALUE = Qt.ItemDataRole.UserRole


class ObjectsPanel(QWidget):
    """Settings of the objects, folded away, and their table."""

    asked = Signal()
    """Look for objects in the result that there is."""

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
        self.table = ObjectsTable()
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
        layout.addWidget(self.table)

    def offer(self, classes: Sequence[LabelClass]) -> None:
        """Offer the classes of a model, all but 0 checked."""
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
        """Return what to look for.

        Raises
        ------
        ValueError
            If the settings do not fit, or no class is chosen.
        """
        values = self.values()
        if not values:
            raise ValueError("choose at least one class whose objects are of interest")
        return ObjectsWanted(values, self.form.build())

    def lock(self, *, running: bool, result: bool) -> None:
        """Let settings be changed only between runs."""
        self.fold.setEnabled(not running)
        self.now_button.setEnabled(result and not running)
