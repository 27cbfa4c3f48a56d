"""A control for the length of a run, in steps, minutes or hours."""

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QWidget

_UNITS = {"steps": 1.0, "minutes": 1.0, "hours": 60.0}


class LengthEdit(QWidget):
    """A number and its unit.

    Parameters
    ----------
    number : float
        The number that is shown first.
    unit : {"steps", "minutes", "hours"}
        The unit that is shown first.
    """

    changed = Signal()

    def __init__(self, number: float, unit: str) -> None:
        super().__init__()
        self._exact: tuple[str, float, float] | None = None
        self.number = QDoubleSpinBox()
        self.number.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        self.unit = QComboBox()
        self.unit.addItems(list(_UNITS))
        self.unit.currentTextChanged.connect(self._take_unit)
        self.unit.setCurrentText(unit)
        self._take_unit(unit)
        self.number.setValue(number)
        self.number.valueChanged.connect(self.changed)
        self.unit.currentTextChanged.connect(self.changed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.number)
        layout.addWidget(self.unit)

    def _take_unit(self, unit: str) -> None:
        whole = unit == "steps"
        self.number.setDecimals(0 if whole else 2)
        self.number.setRange(1 if whole else 0.01, 1e9)

    def values(self) -> dict[str, Any]:
        """Return the settings ``steps`` and ``minutes``, of which one is None."""
        unit, number = self.unit.currentText(), self.number.value()
        if unit == "steps":
            return {"steps": round(number), "minutes": None}
        if self._exact is not None and self._exact[:2] == (unit, number):
            return {"steps": None, "minutes": self._exact[2]}
        return {"steps": None, "minutes": number * _UNITS[unit]}

    def set_values(self, steps: int | None, minutes: float | None) -> None:
        """Show a length, which `values` returns unrounded until the user changes it."""
        if isinstance(steps, int):
            self.unit.setCurrentText("steps")
            self.number.setValue(steps)
        elif isinstance(minutes, int | float):
            hours = minutes >= 120 and minutes % 60 == 0
            self.unit.setCurrentText("hours" if hours else "minutes")
            self.number.setValue(minutes / 60 if hours else minutes)
            self._exact = (self.unit.currentText(), self.number.value(), minutes)
