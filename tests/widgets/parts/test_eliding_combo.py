"""Long names in narrow choices."""

from typing import Any

from qtpy.QtCore import QEvent, QPoint
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QApplication

from napari_affmae.widgets.parts.eliding_combo import ElidingCombo

NAME = "2026-03-04_sample-17_region-B_fib25_dendrite_stack_registered"


def test_names_that_differ_at_their_ends_look_different(qtbot: Any) -> None:
    pictures = []
    for name in (NAME, f"{NAME} labels", NAME):
        combo = ElidingCombo()
        qtbot.addWidget(combo)
        combo.addItem(name)
        combo.resize(140, 26)
        pictures.append(combo.grab().toImage())
    image, labels, again = pictures
    assert image != labels
    assert image == again
    assert combo.minimumSizeHint().width() < 300


def test_the_whole_name_is_its_tooltip(qtbot: Any) -> None:
    combo = ElidingCombo()
    qtbot.addWidget(combo)
    combo.addItems(["short", NAME])
    combo.setToolTip("What it is for.")
    combo.setCurrentIndex(1)
    QApplication.sendEvent(combo, QHelpEvent(QEvent.Type.ToolTip, QPoint(), QPoint()))
    assert combo.toolTip() == f"{NAME}\nWhat it is for."
