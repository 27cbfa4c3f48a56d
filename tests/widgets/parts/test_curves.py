"""Curves that can be read."""

from typing import Any

import numpy as np
import pytest
from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QTabWidget

from napari_affmae.widgets.parts.curves import Curves


@pytest.fixture
def curves(viewer: Any, qtbot: Any) -> Curves:
    made = Curves("loss", logarithmic=True)
    qtbot.addWidget(made)
    made.resize(300, made.height())
    made.show()
    return made


@pytest.mark.parametrize(("low", "high"), [(0.31, 0.42), (0.0011, 0.0013), (0.02, 30.0)])
def test_a_logarithmic_axis_has_ticks_wherever_the_losses_lie(
    curves: Curves, low: float, high: float
) -> None:
    for step, loss in enumerate(np.geomspace(high, low, 20)):
        curves.add(step, {"training": float(loss)})
    curves.redraw()
    ((*ticks,),) = curves._plot.getAxis("left")._tickLevels
    within = [text for place, text in ticks if np.log10(low) <= place <= np.log10(high)]
    assert len(within) >= 2
    for place, text in ticks:
        assert float(text) == pytest.approx(10**place, rel=1e-4)


def test_the_legend_lies_beside_the_lines(curves: Curves, qtbot: Any) -> None:
    curves.add(1, {"training": 0.5, "validation": 0.4})
    curves.redraw()
    assert "training" in curves.legend.text()
    assert "validation" in curves.legend.text()
    assert curves._plot.getPlotItem().legend is None
    qtbot.waitUntil(curves._plot.isVisible)
    assert not curves.legend.geometry().intersects(curves._plot.geometry())
    assert "0.001" not in curves._plot.getAxis("left").labelString()


def test_axes_follow_the_theme(curves: Curves) -> None:
    curves.add(1, {"training": 0.5})
    curves.redraw()
    for theme in ("light", "dark"):
        get_settings().appearance.theme = theme
        color = QColor(get_theme(theme).text.as_hex())
        for side in ("left", "bottom"):
            axis = curves._plot.getAxis(side)
            assert axis.textPen().color() == axis.pen().color() == color
            assert QColor(axis.labelStyle["color"]) == color


def test_curves_do_not_stretch_what_holds_them(qtbot: Any) -> None:
    tabs, curves = QTabWidget(), Curves("loss")
    qtbot.addWidget(tabs)
    tabs.addTab(curves, "Loss")
    curves.add(1, {"training": 0.5})
    curves.redraw()
    assert tabs.sizeHint().height() < curves.height() + 60


def test_curves_keep_their_order_whichever_has_the_first_point(qtbot: Any) -> None:

    curves = Curves("loss", names=("training", "validation"))
    qtbot.addWidget(curves)
    for _ in range(2):
        curves.add(0, {"validation": 0.5})
        curves.redraw()
        curves.add(1, {"training": 0.4})
        curves.redraw()
        assert list(curves._lines) == ["training", "validation"]
        text = curves.legend.text()
        assert text.index("training") < text.index("validation")
        curves.clear()
