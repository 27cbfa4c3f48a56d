"""Controls for settings: those of magicgui, and a few more.

What magicgui's controls lack:

- Its spin box replaces a number that is smaller than the least at once, while it
  is typed: where 64 is the least, typing 128 gives 6428. It shows no word, such as
  ``auto``, in place of a number either.
- Its control for real numbers shows a fixed count of decimals, which suits no
  learning rate.
- Its combo box takes no text besides the choices.
"""

from typing import Annotated, Any

from magicgui.type_map import TypeMap
from magicgui.widgets import CheckBox, ComboBox, LineEdit
from magicgui.widgets.bases import BaseValueWidget, ValuedContainerWidget
from qtpy.QtWidgets import QSpinBox

from napari_affmae.settings_fields import SettingField

_LARGEST = 2**31 - 1


class WholeNumber(ValuedContainerWidget[Any]):
    """A whole number; the step below the least may stand for a word.

    Parameters
    ----------
    value : int or str
        At the start.
    min, max : int
        Bounds of the number.
    word : str, optional
        What may stand in place of the number.
    **options
        See `magicgui.widgets.bases.Widget`.
    """

    def __init__(
        self,
        value: int | str,
        *,
        min: int,  # noqa: A002 - magicgui's name
        max: int,  # noqa: A002 - magicgui's name
        word: str | None = None,
        **options: Any,
    ) -> None:
        self._least, self._word = min, word
        self.spin_box = QSpinBox()
        self.spin_box.setRange(min - (word is not None), max)
        self.spin_box.setSpecialValueText(word or "")
        self.spin_box.setStepType(QSpinBox.StepType.AdaptiveDecimalStepType)
        super().__init__(value, layout="horizontal", labels=False, **options)
        self.margins = (0, 0, 0, 0)
        self.native.layout().addWidget(self.spin_box)
        self.native.setFocusProxy(self.spin_box)
        self.spin_box.setToolTip(self.tooltip)
        self.spin_box.valueChanged.connect(self._tell_change)

    def get_value(self) -> int | str | None:
        """Return the number or the word."""
        number = int(self.spin_box.value())
        return number if number >= self._least else self._word

    def set_value(self, value: int | str) -> None:
        """Show a number or the word.

        Raises
        ------
        TypeError, ValueError
            If it is neither.
        """
        is_word = self._word is not None and value == self._word
        self.spin_box.setValue(self._least - 1 if is_word else int(value))

    def _tell_change(self) -> None:
        self.changed.emit(self.value)


class RealNumber(LineEdit):
    """A real number, typed with a point or a comma."""

    def get_value(self) -> float | str:
        """Return the number, or its text if it is half typed: the settings say what is wrong."""
        text = super().get_value().strip().replace(",", ".")
        try:
            return float(text)
        except ValueError:
            return text

    def set_value(self, value: Any) -> None:
        """Show a number, or the text of one."""
        super().set_value(f"{float(value):.15g}")


class Suggestions(ComboBox):
    """Any text, with some to choose from."""

    def __init__(self, value: str, **options: Any) -> None:
        super().__init__(**options)
        self.native.setEditable(True)
        self.native.editTextChanged.connect(self._tell_change)
        self.value = value

    @property
    def value(self) -> str:
        """What is chosen or typed."""
        return str(self.native.currentText())

    @value.setter
    def value(self, value: str) -> None:
        self.native.setCurrentText(value)

    def _tell_change(self) -> None:
        self.changed.emit(self.value)


_TYPES = TypeMap(simple_types={bool: CheckBox, int: WholeNumber, float: RealNumber})


def make_control(field: SettingField) -> BaseValueWidget[Any]:
    """Make the control of a setting, with its label, tooltip, bounds and default.

    No form shows a tuple, a setting that may be None, or a text without examples, so
    there is no control for these.
    """
    kind = field.kinds[0]
    options: dict[str, Any] = {"tooltip": field.description}
    if kind is int:
        word = next(iter(field.choices), None)
        low = int(word is not None) if field.low is None else field.low
        high = _LARGEST if field.high is None else field.high
        options |= {"min": int(low), "max": int(high), "word": word}
    elif field.examples:
        options |= {"choices": field.examples, "widget_type": Suggestions}
    return _TYPES.create_widget(field.default, Annotated[kind, options], label=field.title)
