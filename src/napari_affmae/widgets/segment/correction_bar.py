"""Buttons, keys and strokes of the mouse that correct objects."""

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import napari
import numpy as np
from napari.layers import Labels, Shapes
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_affmae.widgets.layers.layer_sources import OWN, layer_geometry
from napari_affmae.widgets.layers.own_layers import OwnLayers
from napari_affmae.widgets.parts.messages import Messages
from napari_affmae.widgets.segment.corrections import Corrections, Places, line_through
from napari_affmae.widgets.segment.remeasuring import ACCEPTED, CORRECTED, DELETED

#: Keys in the canvas while the layer of objects is selected. napari has none of them there.
ACCEPT, DELETE, JOIN, CUT = "A", "D", "J", "K"
_STROKE, _WIDTH = "#ff5cf4", 2  # width in pixels of the image


class CorrectionBar(QWidget):
    """Accepts, deletes, joins and cuts the objects of a layer.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer of the layer.
    corrections : Corrections
        Makes the changes.
    hand_over : Callable[[], None]
        Gives what is accepted to the dock that fine-tunes.
    """

    def __init__(
        self,
        viewer: "napari.viewer.Viewer",
        corrections: Corrections,
        hand_over: Callable[[], None],
    ) -> None:
        super().__init__()
        self._viewer, self._corrections = viewer, corrections
        self._layer: Labels | None = None
        self._let_go: Callable[[], None] | None = None
        self._strokes = OwnLayers(viewer)
        self._tips: dict[QPushButton, str] = {}
        self.accept_button = self._button(
            f"Accept ({ACCEPT})",
            "Marks the selected object as right, or takes that back. Click an object to select it.",
            self.accept,
        )
        self.delete_button = self._button(
            f"Delete ({DELETE})", "Deletes the selected object.", self.delete
        )
        self.join_button = self._button(
            f"Join ({JOIN})",
            "While it is pressed: draw a stroke over objects, and they become one.",
            checkable=True,
        )
        self.cut_button = self._button(
            f"Cut ({CUT})",
            "While it is pressed: draw a stroke across an object, from outside to outside, and it "
            "is divided there; in a volume through all planes.",
            checkable=True,
        )
        self.join_button.toggled.connect(lambda on: self._choose(self.join_button, on))
        self.cut_button.toggled.connect(lambda on: self._choose(self.cut_button, on))
        self.undo_button = self._button(
            "Undo", "Takes the last change back, as napari's Ctrl+Z does.", self._undo
        )
        self.train_button = self._button(
            "Train with accepted ...",
            "Copies the accepted objects into a layer of their own beside your strokes, in the "
            "dock that fine-tunes. Nothing is learned from them until you say so there.",
            hand_over,
        )
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.messages = Messages()
        grid = QGridLayout()
        buttons = (
            (self.accept_button, self.join_button, self.undo_button),
            (self.delete_button, self.cut_button, self.train_button),
        )
        for row, several in enumerate(buttons):
            for column, button in enumerate(several):
                grid.addWidget(button, row, column)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(grid)
        layout.addWidget(self.state)
        layout.addWidget(self.messages)
        corrections.changed.connect(self._show_state)
        self._show_state()

    def _button(
        self,
        text: str,
        tip: str,
        action: Callable[[], None] | None = None,
        *,
        checkable: bool = False,
    ) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        self._tips[button] = tip
        button.setCheckable(checkable)
        if action is not None:
            button.clicked.connect(lambda: self._try(action))
        return button

    def attach(self, layer: Labels) -> None:
        """Correct the objects of another layer from now on."""
        self.release()
        for button, tip in self._tips.items():
            button.setEnabled(True)
            button.setToolTip(tip)
        self._layer = layer
        layer.mouse_drag_callbacks.append(self._draw)
        for key, action in (
            (ACCEPT, self.accept),
            (DELETE, self.delete),
            (JOIN, self.join_button.toggle),
            (CUT, self.cut_button.toggle),
        ):
            layer.bind_key(key, self._on_key(action), overwrite=True)
        self._let_go = partial(_release, layer, self._draw)
        self.destroyed.connect(self._let_go)  # the layer outlives the dock
        self._show_state()

    def refuse(self, reason: str) -> None:
        """Correct nothing until another layer is attached, and say why."""
        self.release()
        for button, tip in self._tips.items():
            button.setEnabled(False)
            button.setToolTip(f"{tip} {reason}")
        self.state.setText(reason)

    def release(self) -> None:
        """Put the tools away."""
        for button in (self.join_button, self.cut_button):
            button.setChecked(False)
        if self._let_go is not None:
            self.destroyed.disconnect(self._let_go)
            self._let_go()
        self._layer = self._let_go = None

    @property
    def is_drawing(self) -> bool:
        """Whether the mouse draws strokes, and does not select objects."""
        return self.join_button.isChecked() or self.cut_button.isChecked()

    def accept(self) -> None:
        """Accept the selected object, or take that back."""
        self._corrections.accept(self._selected())

    def delete(self) -> None:
        """Delete the selected object."""
        self._corrections.delete(self._selected())

    def _selected(self) -> int:
        return 0 if self._layer is None else int(self._layer.selected_label)

    def _undo(self) -> None:
        if self._layer is not None:
            self._layer.undo()

    def _on_key(self, action: Callable[[], None]) -> Callable[[Labels], None]:
        return lambda _: self._try(action)

    def _try(self, action: Callable[[], None]) -> None:
        """Do something, and say why it cannot be done."""
        self.messages.clear()
        try:
            action()
        except ValueError as error:
            text = str(error)
            self.messages.add(f"{text[:1].upper()}{text[1:]}.", "error")

    def _choose(self, button: QPushButton, on: bool) -> None:
        """Let the mouse draw, or move the view again."""
        other = self.cut_button if button is self.join_button else self.join_button
        if on:
            other.setChecked(False)
            self.messages.clear()
        layer = self._layer
        if layer is None or layer not in self._viewer.layers:
            return
        if on:
            self._viewer.layers.selection.active = layer
            layer.mode = "pan_zoom"
        layer.mouse_pan = not self.is_drawing

    def _draw(self, layer: Labels, event: Any) -> Generator[None, None, None]:
        """Draw a stroke with the mouse, and join or cut what it goes over."""
        if not self.is_drawing or layer.mode != "pan_zoom" or self._viewer.dims.ndisplay != 2:
            return
        points = [layer.world_to_data(event.position)]
        shown = self._show_stroke(layer, points)
        yield
        while event.type == "mouse_move":
            points.append(layer.world_to_data(event.position))
            shown.data = [np.asarray(points)]
            yield
        self._strokes.show([])
        self._viewer.layers.selection.active = layer
        work = self._corrections.join if self.join_button.isChecked() else self._corrections.cut
        line = line_through(points, layer.data.shape)
        self._try(lambda: _on(line, work))

    def _show_stroke(self, layer: Labels, points: list[Any]) -> Shapes:
        """Show the stroke while it is drawn."""
        stroke = Shapes(
            [np.asarray(points * 2)],
            shape_type="path",
            edge_color=_STROKE,
            edge_width=_WIDTH,
            name="stroke",
            metadata=OWN,
            **layer_geometry(layer),
        )
        self._strokes.show([stroke])
        self._viewer.layers.selection.active = layer
        return stroke

    def _show_state(self) -> None:
        counts = [self._corrections.count(state) for state in (ACCEPTED, CORRECTED, DELETED)]
        self.train_button.setEnabled(counts[0] > 0)
        self.state.setText("{} accepted, {} corrected, {} deleted".format(*counts))


def _release(layer: Labels, draw: Callable[..., Any], *_: object) -> None:
    """Take keys and strokes from a layer."""
    layer.mouse_drag_callbacks.remove(draw)
    for key in (ACCEPT, DELETE, JOIN, CUT):
        layer.bind_key(key, None)
    layer.mouse_pan = True


def _on(line: Places, work: Callable[[Places], None]) -> None:
    if not line[-1].size:
        raise ValueError("the stroke must go over the objects")
    work(line)
