"""Forms made from settings: labels, tooltips and bounds are those of their fields."""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtCore import QLocale, Signal
from qtpy.QtGui import QDoubleValidator
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_affmae.config import Settings

S = TypeVar("S", bound=Settings)
_LARGEST = 2**31 - 1


class SettingsForm(QWidget, Generic[S]):
    """Controls for the fields of a settings class.

    Parameters
    ----------
    settings : type[Settings]
        Fields that are settings themselves become a group of controls.
    basic : sequence of str
        Fields that are always shown, in this order.
    advanced : sequence of str
        Fields that are folded away.
    above : sequence of (str, QWidget)
        Rows of other controls, before the fields.
    """

    changed = Signal()

    def __init__(
        self,
        settings: type[S],
        *,
        basic: Sequence[str],
        advanced: Sequence[str] = (),
        above: Sequence[tuple[str, QWidget]] = (),
    ) -> None:
        super().__init__()
        self._settings = settings
        self._fields: dict[tuple[str, ...], _Control] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        rows = self._rows(basic)
        for number, row in enumerate(above):
            rows.insertRow(number, *row)
        layout.addLayout(rows)
        if advanced:
            folded = QWidget()
            folded.setLayout(self._rows(advanced))
            self._fold = fold("Advanced settings")
            self._fold.addWidget(folded)
            layout.addWidget(self._fold)

    def _rows(self, names: Sequence[str]) -> QFormLayout:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(4)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name in names:
            info = self._settings.model_fields[name]
            if isinstance(info.default, Settings):
                for inner, inner_info in type(info.default).model_fields.items():
                    self._add(form, (name, inner), inner_info, getattr(info.default, inner))
            else:
                self._add(form, (name,), info, info.default)
        return form

    def _add(self, form: QFormLayout, path: tuple[str, ...], info: FieldInfo, default: Any) -> None:
        control = _make_control(info)
        control.widget.setObjectName(".".join(path))
        control.widget.setToolTip(info.description or "")
        control.set(default)
        control.connect(self.changed)
        self._fields[path] = control
        form.addRow(f"{info.title}", control.widget)

    def control(self, name: str) -> QWidget:
        """Return the control of a field, ``"crop"`` or ``"normalization.clahe"``."""
        return self._fields[tuple(name.split("."))].widget

    def set_enabled(self, only: Collection[str] | None) -> None:
        """Enable all controls, or those of some fields only."""
        for path, control in self._fields.items():
            control.widget.setEnabled(only is None or path[0] in only)

    def values(self) -> dict[str, Any]:
        """Return what is entered, nested like the settings."""
        nested: dict[str, Any] = {}
        for path, control in self._fields.items():
            inner = nested
            for part in path[:-1]:
                inner = inner.setdefault(part, {})
            inner[path[-1]] = control.get()
        return nested

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Enter values; those that no control shows, or no longer may have, are left out."""
        for path, control in self._fields.items():
            value: Any = values
            for part in path:
                value = value.get(part, ...) if isinstance(value, Mapping) else ...
            if value is not ...:
                # Remembered as it was left: half-typed perhaps, or by another version.
                with suppress(TypeError, ValueError):
                    control.set(value)

    def build(self, **others: Any) -> S:
        """Make the settings of what is entered and of `others`.

        Raises
        ------
        ValueError
            If they do not fit; one line a problem, with the fields' titles.
        """
        values = {**self.values(), **others}
        for name, value in values.items():
            default = self._settings.model_fields[name].default
            if isinstance(default, Settings):
                values[name] = {**default.model_dump(), **value}
        try:
            return self._settings.model_validate(values)
        except ValidationError as error:
            raise ValueError(_in_words(error, self._settings)) from error


def fold(title: str) -> QCollapsible:
    """Make a part that is folded away at first."""
    made = QCollapsible(title, collapsedIcon="▶", expandedIcon="▼")
    made.layout().setContentsMargins(0, 0, 0, 0)
    return made


def _in_words(error: ValidationError, settings: type[BaseModel]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        reason = problem["msg"].removeprefix("Value error, ")
        title = _title(problem["loc"], settings)
        lines.append(f"{title}: {reason}" if title else reason)
    return "\n".join(dict.fromkeys(lines))


def _title(location: Sequence[int | str], settings: type[BaseModel]) -> str:
    """Name the innermost setting that a place in nested settings belongs to."""
    title, fields = "", settings.model_fields
    for name in location:
        if name not in fields:
            return title or str(name)
        info = fields[str(name)]
        title = info.title or ""
        fields = type(info.default).model_fields if isinstance(info.default, Settings) else {}
    return title


class _Control(Generic[S]):
    """A widget, and how its value is read and written."""

    widget: QWidget

    def get(self) -> Any:
        raise NotImplementedError

    def set(self, value: Any) -> None:
        raise NotImplementedError

    def connect(self, slot: Any) -> None:
        raise NotImplementedError


class _Switch(_Control[Any]):
    def __init__(self) -> None:
        self.widget = QCheckBox()

    def get(self) -> bool:
        return bool(self.widget.isChecked())

    def set(self, value: Any) -> None:
        self.widget.setChecked(bool(value))

    def connect(self, slot: Any) -> None:
        self.widget.toggled.connect(slot)


class _Choice(_Control[Any]):
    def __init__(self, words: Sequence[str]) -> None:
        self.widget = QComboBox()
        self.widget.addItems(list(words))

    def get(self) -> str:
        return str(self.widget.currentText())

    def set(self, value: Any) -> None:
        self.widget.setCurrentText(str(value))

    def connect(self, slot: Any) -> None:
        self.widget.currentTextChanged.connect(slot)


class _Suggestion(_Choice):
    """A text, with some to choose from."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(words)
        self.widget.setEditable(True)


class _Number(_Control[Any]):
    """A whole number; the step below the least stands for a word or for nothing."""

    def __init__(self, low: int, high: int, instead: str | None, has_instead: bool) -> None:
        self.widget = QSpinBox()
        self.widget.setRange(low - has_instead, high)
        self._instead = instead
        self._special = low - 1 if has_instead else None
        if has_instead:
            self.widget.setSpecialValueText(instead or "none")
        self.widget.setStepType(QSpinBox.StepType.AdaptiveDecimalStepType)

    def get(self) -> int | str | None:
        value = int(self.widget.value())
        return self._instead if value == self._special else value

    def set(self, value: Any) -> None:
        if isinstance(value, int):
            self.widget.setValue(value)
        elif value == self._instead and self._special is not None:
            self.widget.setValue(self._special)

    def connect(self, slot: Any) -> None:
        self.widget.valueChanged.connect(slot)


class _Text(_Control[Any]):
    def __init__(self) -> None:
        self.widget = QLineEdit()

    def get(self) -> Any:
        return self.widget.text().strip() or None

    def set(self, value: Any) -> None:
        self.widget.setText("" if value is None else str(value))

    def connect(self, slot: Any) -> None:
        self.widget.textChanged.connect(slot)


class _PointOrComma(QDoubleValidator):
    """Lets numbers be typed as in settings and papers, with a point; a comma becomes one."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__(low, high, 12)
        self.setLocale(QLocale.c())

    def validate(self, text: str, position: int) -> Any:
        """Validate with a point for each comma."""
        return super().validate(text.replace(",", "."), position)


class _Real(_Text):
    """A real number, from 1e-6 to large ones; empty where there may be none."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.widget.setValidator(_PointOrComma(low, high))

    def get(self) -> Any:
        text = super().get()
        try:
            return None if text is None else float(text)
        except ValueError:
            return text  # half-typed: the settings say what is wrong with it

    def set(self, value: Any) -> None:
        super().set(None if value is None else f"{float(value):.15g}")


class _Reals(_Text):
    """Several real numbers with commas between them."""

    def get(self) -> Any:
        return [part.strip() for part in self.widget.text().split(",") if part.strip()]

    def set(self, value: Any) -> None:
        super().set(", ".join(f"{float(part):.15g}" for part in value))


def _make_control(info: FieldInfo) -> _Control[Any]:
    annotation = info.annotation
    kinds = [annotation]
    if get_origin(annotation) not in {Literal, tuple} and get_args(annotation):
        kinds = list(get_args(annotation))
    if bool in kinds:
        return _Switch()
    low, high = _bounds(info)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if int in kinds:
        word = words[0] if words else None
        low = (1 if word else 0) if low == -math.inf else math.ceil(low)
        return _Number(low, int(min(high, _LARGEST)), word, bool(words) or NoneType in kinds)
    if float in kinds:
        return _Real(low, high)
    if words:
        return _Choice(words)
    if info.examples:
        return _Suggestion(info.examples)
    return _Reals() if any(get_origin(kind) is tuple for kind in kinds) else _Text()


def _bounds(info: FieldInfo) -> tuple[float, float]:
    low, high = -math.inf, math.inf
    for constraint in info.metadata:
        match constraint:
            case Ge(ge=value) | Gt(gt=value):
                low = float(value)  # type: ignore[arg-type]
            case Le(le=value) | Lt(lt=value):
                high = float(value)  # type: ignore[arg-type]
    return low, high
