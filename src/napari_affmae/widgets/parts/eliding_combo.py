"""A choice among long names."""

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QStyle, QStyleOptionComboBox, QStylePainter

_SHORTEST = 14
_MARGIN = 6


class ElidingCombo(QComboBox):
    """A choice that cuts long names in their middle, and shows them whole as a tooltip.

    The names of an image and of its labels differ at their ends alone. The control may be much
    narrower than its names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(_SHORTEST)
        self.view().setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self._tip = ""

    def setToolTip(self, tip: str) -> None:  # noqa: N802 - Qt's name
        """Set what is told below the chosen name."""
        self._tip = tip

    def event(self, event: Any) -> bool:
        """Tell the chosen name, whatever it is by now."""
        if event.type() == event.Type.ToolTip:
            super().setToolTip("\n".join(filter(None, [self.currentText(), self._tip])))
        return bool(super().event(event))

    def paintEvent(self, event: Any) -> None:  # noqa: ARG002, N802 - Qt's name
        """Draw the chosen name, with its middle left out if it is too long."""
        painter, option = QStylePainter(self), QStyleOptionComboBox()
        self.initStyleOption(option)
        field = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            option,
            QStyle.SubControl.SC_ComboBoxEditField,
            self,
        )
        text = option.currentText or self.placeholderText()
        option.currentText = option.fontMetrics.elidedText(
            text, Qt.TextElideMode.ElideMiddle, field.width() - _MARGIN
        )
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
