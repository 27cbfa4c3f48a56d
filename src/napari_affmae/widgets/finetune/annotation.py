"""The annotation: the pairs of layers, the classes, and where labels are painted."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import napari
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal

from napari_affmae.config import MOST_CLASSES, LabelClass
from napari_affmae.errors import DataError, TooFewClassesError
from napari_affmae.widgets.finetune.class_table import ClassTable
from napari_affmae.widgets.finetune.file_classes import FileClasses
from napari_affmae.widgets.finetune.painted import Painted, Square
from napari_affmae.widgets.finetune.pair_table import Pair, PairTable
from napari_affmae.widgets.layers.label_layers import classes_of, show_classes
from napari_affmae.widgets.layers.layer_sources import LayerImage
from napari_affmae.widgets.parts.lifetime import connect_while_alive

# Labels that cover more than this part of a plane are not strokes: they may be complete.
_MORE_THAN_STROKES = 0.02
#: Advice for complete labels.
COMPLETE = "Where labels are complete, choose 'Unpainted: background', which makes the rest a class"


class Annotation(QObject):
    """Keeps the pairs' layers and the table of classes in step.

    Classes' names and colours go to the labels layers, the selected class to
    their brush and back, and painted pixels to the table.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that holds the layers.
    pairs : PairTable
        The pairs.
    classes : ClassTable
        The classes.
    """

    stroked = Signal()
    """Strokes, classes or pairs have changed: what is learned is out of date."""
    renamed = Signal()
    """Only names or colours of classes have changed."""
    counted = Signal()
    """The painted pixels were counted anew."""
    looked = Signal()
    """The user may look at another pair now."""
    noticed = Signal(str)
    """A hint about labels, for the user."""
    touched = Signal(object, object)
    """Parts of labels were edited: the layer, and the squares."""
    failed = Signal(object)
    """Labels cannot be used, or a name of a class is refused: the exception."""

    def __init__(
        self, viewer: "napari.viewer.Viewer", pairs: PairTable, classes: ClassTable
    ) -> None:
        super().__init__(pairs)
        self._viewer, self._pairs, self._classes = viewer, pairs, classes
        self._painted: dict[Labels, Painted] = {}
        self._strange: set[Labels] = set()
        self._images: dict[Image, LayerImage] = {}
        self._looked_at: set[Image] = set()
        self._selected: Image | None = None
        self._files = FileClasses(self)
        self._files.found.connect(self._take_file_classes)
        pairs.changed.connect(self._take_pairs)
        pairs.channels.changed.connect(self.stroked)
        self._meaning: tuple[Any, ...] = ()
        classes.changed.connect(self._take_classes)
        classes.chosen.connect(self._take_brush)
        classes.removing.connect(self._erase)
        classes.refused.connect(self.failed)
        connect_while_alive(self, viewer.layers.selection.events.active, self._look)
        self._take_pairs()

    def pairs(self) -> list[Pair]:
        """Return the complete pairs."""
        return self._pairs.pairs()

    def check(self) -> None:
        """Check that there are pairs to train on, and classes.

        Raises
        ------
        ValueError
            Says what is missing.
        """
        self._pairs.check()
        if len(self.classes()) < 2:
            hint = "" if self.ignore_value is None else f" {COMPLETE}."
            raise ValueError(f"There must be at least two classes: add one to the table.{hint}")

    def classes(self) -> tuple[LabelClass, ...]:
        """Return the classes."""
        return self._classes.classes()

    def counts(self) -> Counter[int]:
        """Return the painted pixels of each value, as far as they are counted."""
        return sum((painted.counts for painted in self._painted.values()), Counter())

    @property
    def ignore_value(self) -> int | None:
        """The label value that means unknown."""
        return self._classes.ignore_value

    def image(self, layer: Image) -> LayerImage:
        """Return an image layer as a source: the same object until its array or channels change.

        Raises
        ------
        ValueError
            If the image does not have the channels that are entered.
        """
        channels = self._pairs.channels_of(layer)
        if layer not in self._images or not self._images[layer].reads(layer, channels):
            self._images[layer] = LayerImage(layer, channels)
        return self._images[layer]

    def painted(self, labels: Labels) -> Painted:
        """Return the record of the painted parts of a labels layer of a pair."""
        return self._painted[labels]

    def recount(self) -> Callable[[], Counter[int]] | None:
        """Return a function that counts what is painted now, to be called in a worker.

        None while labels that were there before are still being scanned.
        """
        if any(painted.is_looking for painted in self._painted.values()):
            return None
        counts = [painted.recount() for painted in self._painted.values()]
        return lambda: sum((count() for count in counts), Counter())

    def look_again(self) -> None:
        """Look for labels that scripts have written; `stroked` reports them."""
        for painted in self._painted.values():
            painted.look_again()

    def strokes(self) -> tuple[tuple[int, Square], ...]:
        """Return the painted squares, each with the number of its pair."""
        return tuple(
            (number, square)
            for number, (_, labels) in enumerate(self.pairs())
            for square in self._painted[labels].squares()
        )

    def shown_pair(self) -> int:
        """Return the number of the pair that the user looks at.

        It is the pair of the selected layer, else of the layer that was selected last, if
        its image is visible, else of the topmost visible image.

        Raises
        ------
        ValueError
            If no image of the pairs is visible.
        """
        layers = self._viewer.layers
        visible: dict[Image, int] = {}
        for number, pair in enumerate(self.pairs()):
            if layers.selection.active in pair:
                return number
            if pair[0].visible and pair[0] in layers:
                visible[pair[0]] = number
        if not visible:
            raise ValueError("No image of the pairs is visible: show one.")
        return visible.get(self._selected, visible[max(visible, key=layers.index)])

    def _look(self) -> None:
        active = self._viewer.layers.selection.active
        self._selected = next((pair[0] for pair in self.pairs() if active in pair), self._selected)
        self.looked.emit()

    def _take_pairs(self) -> None:
        used = {labels for _, labels in self.pairs()}
        for labels in self._painted.keys() - used:
            painted = self._painted.pop(labels)
            painted.forget()
            labels.events.selected_label.disconnect(self._take_label)
            painted.deleteLater()
        images = {image for image, _ in self.pairs()}
        for image in self._images.keys() - images:
            del self._images[image]
        for image in self._looked_at - images:
            image.events.visible.disconnect(self._look)
        for image in images - self._looked_at:
            image.events.visible.connect(self._look)
        self._looked_at = images
        if self._selected not in images:
            self._selected = None
        self._strange &= used
        for labels in used - self._painted.keys():
            if classes_of(labels) is None:
                self._strange.add(labels)
            self._recall_classes(labels)
            self._painted[labels] = painted = Painted(labels, self)
            painted.stroked.connect(self.stroked)
            painted.touched.connect(self.touched)
            painted.counted.connect(self._show_counts)
            painted.failed.connect(self.failed)
            connect_while_alive(painted, labels.events.selected_label, self._take_label)
        self._take_classes(always=True)
        self._show_counts()
        self._classes.drop_found()

    def _recall_classes(self, labels: Labels) -> None:
        """Take over the classes of the first labels layer, and what 0 means there.

        What classes labels of another program have, the file of each may say.
        """
        known = classes_of(labels)
        if known is None:
            self._files.ask(labels)
        if known is None or self._painted:
            return
        # A new layer has no labels yet: it does not tell whether 0 is a class.
        classes = known or [item for item in self.classes() if item.value]
        zero_is_class = any(not item.value for item in known)
        self._classes.set_classes(classes, ignore_value=None if zero_is_class else 0)

    def _take_file_classes(self, labels: Labels, classes: Sequence[LabelClass]) -> None:
        if labels in self._painted:
            self._classes.propose(classes)

    def _take_classes(self, *, always: bool = False) -> None:
        """Show the classes in the layers, and emit `stroked` or `renamed`."""
        classes = self.classes()
        before = self._meaning
        self._meaning = (tuple(item.value for item in classes), self.ignore_value)
        for labels in self._painted:
            show_classes(labels, classes)
        if self._classes.chosen_value():
            self._take_brush(self._classes.chosen_value())
        if always or self._meaning != before:
            self.stroked.emit()
        else:
            self.renamed.emit()

    def _take_brush(self, value: int) -> None:
        for labels in self._painted:
            labels.selected_label = value

    def _take_label(self, event: object) -> None:
        self._classes.choose(event.source.selected_label)  # type: ignore[attr-defined]

    def _erase(self, value: int) -> None:
        for labels, painted in self._painted.items():
            self.edit(labels, partial(painted.erase, value))

    def edit(self, labels: Labels, change: Callable[[], None]) -> None:
        """Change labels, and report it if they cannot be changed."""
        try:
            change()
        except (TypeError, ValueError, OSError, NotImplementedError) as error:
            # Read-only arrays raise various errors.
            self.failed.emit(
                DataError(
                    f"the labels {labels.name!r} cannot be changed: "
                    f"{error}. Choose labels that can be painted on"
                )
            )

    def _show_counts(self) -> None:
        total: Counter[int] = Counter()
        known = {item.value for item in self.classes()}
        found: set[int] = set()
        for labels, painted in self._painted.items():
            total.update(painted.counts)
            strange = painted.counts.keys() - known
            # They are judged as a whole, once all are counted.
            if not painted.is_looking and len(strange) <= MOST_CLASSES:
                found |= strange
                self._meet(labels, painted)
        self.complain()
        self._classes.add_values(sorted(found))
        self._classes.set_counts(total)
        self.counted.emit()

    def complain(self) -> None:
        """Emit `failed` for labels that look like numbered objects."""
        known = {item.value for item in self.classes()}
        for labels, painted in self._painted.items():
            strange = painted.counts.keys() - known
            if not painted.is_looking and len(strange) > MOST_CLASSES:
                self.failed.emit(
                    DataError(
                        f"the labels {labels.name!r} hold more than {MOST_CLASSES} values that no "
                        "class has: they look like numbered objects, not classes. Give each class "
                        "one value, or choose other labels"
                    )
                )

    def _meet(self, labels: Labels, painted: Painted) -> None:
        """Take over the values of labels from elsewhere, and give a hint if they look complete."""
        if labels not in self._strange:
            return
        self._strange.remove(labels)
        if painted.covered < _MORE_THAN_STROKES:
            return
        if len(self._painted) == 1:
            self._classes.take_values(sorted(painted.counts))
        if self.ignore_value is not None:
            self.noticed.emit(f"The labels {labels.name!r} were there before. {COMPLETE}.")


def check_painted(counts: Counter[int], classes: Sequence[LabelClass]) -> None:
    """Check that at least two classes are painted.

    Parameters
    ----------
    counts : Counter of int
        Painted pixels by value.
    classes : sequence of LabelClass
        All classes; the class of value 0 stands for unpainted pixels.

    Raises
    ------
    TooFewClassesError
        If fewer than two are.
    """
    painted = [item.name for item in classes if item.value and counts[item.value] > 0]
    if not painted:
        raise TooFewClassesError(
            "nothing is painted yet: select a class and paint a few strokes of it, then of another"
        )
    if len(painted) + any(not item.value for item in classes) < 2:
        raise TooFewClassesError(
            f"only {painted[0]!r} is painted: paint strokes of another class too, "
            f"for training must distinguish at least two. {COMPLETE}"
        )
