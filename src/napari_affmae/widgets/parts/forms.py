"""Forms made from settings: labels, tooltips and bounds are those of their fields.

magicgui makes the controls, with the additions in `controls`. This module adds
what its own forms for pydantic's classes lack: settings inside settings, unions
such as a number or ``auto``, a part that is folded away, and words for values that
do not fit. Rows stand in Qt's form layout: magicgui's containers measure labels
without napari's style, so that controls are not aligned and large labels are cut.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from magicgui.widgets import CheckBox
from magicgui.widgets.bases import BaseValueWidget
from pydantic import ValidationError
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_affmae.config import Settings
from napari_affmae.settings_fields import FieldPath, build_settings, nest, problems, setting_fields
from napari_affmae.widgets.parts.controls import make_control

S = TypeVar("S", bound=Settings)
#: Settings that say how the user's computer is to be used. They last from one session to the
#: next; all others were chosen for one run, and would surprise in another one.
LASTING = frozenset({"device", "precision", "memory_share", "checkpoint_minutes"})


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
        self._controls: dict[FieldPath, BaseValueWidget[Any]] = {}
        self._defaults: dict[FieldPath, Any] = {}
        self._labels: dict[FieldPath, QWidget] = {}
        self.reset_button = QPushButton("Reset to defaults")
        self.reset_button.setToolTip("Settings that differ from the defaults are in bold.")
        self.reset_button.clicked.connect(self.reset)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        rows = self._rows(basic)
        for number, row in enumerate(above):
            rows.insertRow(number, *row)
        layout.addLayout(rows)
        if advanced:
            inside = QWidget()
            inside.setLayout(self._rows(advanced))
            folded = fold("Advanced settings")
            folded.addWidget(inside)
            layout.addWidget(folded)
        layout.addWidget(self.reset_button)
        self._mark()

    def _rows(self, names: Sequence[str]) -> QFormLayout:
        rows = QFormLayout()
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setVerticalSpacing(4)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        fields = list(setting_fields(self._settings))
        for field in (field for name in names for field in fields if field.path[0] == name):
            control = self._controls[field.path] = make_control(field)
            self._defaults[field.path] = control.value
            control.changed.connect(self._tell_change)
            if isinstance(control, CheckBox):  # a box shows its label itself
                self._labels[field.path] = control.native
                rows.addRow(control.native)
            else:
                self._labels[field.path] = label = QLabel(control.label)
                label.setToolTip(field.description)
                rows.addRow(label, control.native)
        return rows

    def _tell_change(self) -> None:
        self._mark()
        self.changed.emit()

    def differing(self) -> list[FieldPath]:
        """Return the fields that do not have their defaults."""
        return [
            path
            for path, control in self._controls.items()
            if control.value != self._defaults[path]
        ]

    def reset(self) -> None:
        """Enter the defaults."""
        for path in self.differing():
            self._controls[path].value = self._defaults[path]

    def _mark(self) -> None:
        """Show in bold what differs from the defaults, and offer to reset it."""
        differing = self.differing()
        for path, label in self._labels.items():
            font = label.font()
            font.setBold(path in differing)
            label.setFont(font)
        self.reset_button.setVisible(bool(differing))

    def control(self, name: str) -> QWidget:
        """Return the control of a field, ``"crop"`` or ``"normalization.clahe"``."""
        control = self._controls[tuple(name.split("."))].native
        return control.focusProxy() or control

    def set_enabled(self, only: Collection[str] | None) -> None:
        """Enable all controls, or those of some fields only."""
        for path, control in self._controls.items():
            control.enabled = only is None or path[0] in only
        self.reset_button.setEnabled(only is None)

    def values(self) -> dict[str, Any]:
        """Return what is entered, nested like the settings."""
        return nest({path: control.value for path, control in self._controls.items()})

    def lasting(self) -> dict[str, Any]:
        """Return what is entered of the settings that last from one session to the next."""
        return {name: value for name, value in self.values().items() if name in LASTING}

    def recall(self, values: Mapping[str, Any]) -> None:
        """Enter the settings of an earlier session that last; the others were for one run."""
        self.set_values({name: value for name, value in values.items() if name in LASTING})

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Enter values; those that no control shows or takes are left out."""
        for path, control in self._controls.items():
            value: Any = values
            for part in path:
                value = value.get(part, ...) if isinstance(value, Mapping) else ...
            if value is not ...:
                # What is remembered may be half typed, or come from another version.
                with suppress(TypeError, ValueError):
                    control.value = value

    def build(self, **others: Any) -> S:
        """Make the settings of what is entered and of `others`.

        Raises
        ------
        ValueError
            If they do not fit. Each problem is one line, which names the field by its title.
        """
        try:
            return build_settings(self._settings, self.values(), others)
        except ValidationError as error:
            lines = []
            for field, name, reason, _ in problems(error, self._settings):
                title = name if field is None else field.title
                lines.append(f"{title}: {reason}" if title else reason)
            raise ValueError("\n".join(dict.fromkeys(lines))) from error


def fold(title: str) -> QCollapsible:
    """Make a part that is folded away at first."""
    made = QCollapsible(title, collapsedIcon="▶", expandedIcon="▼")
    made.layout().setContentsMargins(0, 0, 0, 0)
    return made
