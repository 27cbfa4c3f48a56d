"""The jobs of quick training: one training is kept as long as its setup is the same."""

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from napari_affmae.config import LabelClass, QuickConfig
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine import events as ev
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.finetune.painted import Square
from napari_affmae.widgets.layers.view import LayerView
from napari_affmae.widgets.parts.preferences import kept_features

R = TypeVar("R")

_WAIT_SECONDS = 0.1


@dataclass(frozen=True)
class QuickSetup:
    """What a training depends on; another setup needs another training.

    Attributes
    ----------
    pretrained : Path or None
        Model to start from.
    images, labels : tuple of ImageSource
        The sources of the pairs, compared by identity.
    classes : tuple of LabelClass
        The classes that are painted.
    ignore_value : int or None
        The label value that means unknown.
    config : QuickConfig
        Settings.
    """

    pretrained: Path | None
    images: tuple[ImageSource, ...]
    labels: tuple[ImageSource, ...]
    classes: tuple[LabelClass, ...]
    ignore_value: int | None
    config: QuickConfig

    def is_learned_like(self, other: "QuickSetup | None") -> bool:
        """Return whether another setup has at most other names and colours of classes."""
        if other is None or replace(self, classes=()) != replace(other, classes=()):
            return False
        return [item.value for item in self.classes] == [item.value for item in other.classes]


@dataclass(frozen=True)
class QuickRequest:
    """The strokes to learn from, and the view to predict.

    Attributes
    ----------
    strokes : tuple of (int, Square)
        Number of the pair, and a square that is painted.
    pair : int
        Number of the pair that is in view.
    view : LayerView
        The part of its image that is in view.
    """

    strokes: tuple[tuple[int, Square], ...]
    pair: int
    view: LayerView


@dataclass(frozen=True)
class Saved(ev.Event):
    """A model file was written."""

    path: Path


@dataclass(frozen=True)
class PredictedAhead(ev.Event):
    """A view that is not shown yet was predicted."""

    view: LayerView
    prediction: ev.ViewPredicted


@dataclass(frozen=True)
class _InTurn(ev.Event):
    """Reported while a job waits for another one, so that a stopped job can end here."""


class QuickSession:
    """Keeps a `QuickTraining`, which is made when it is needed, for one job at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[object] = set()
        self._setup: QuickSetup | None = None
        self._training: Any = None

    def update(self, setup: QuickSetup, request: QuickRequest) -> Generator[ev.Event, None, None]:
        """Learn the strokes and predict the view; ends with `ViewPredicted`."""
        yield from self._in_turn(self._update(setup, request))

    def _update(self, setup: QuickSetup, request: QuickRequest) -> Generator[ev.Event, None, None]:
        strokes = _read(setup, request)
        if not setup.is_learned_like(self._setup):
            yield from self._renew(setup)
        self._training.rename(setup.classes)
        from napari_affmae.engine import QuickView

        training = self._training
        sources = [training.normalize(image) for image in setup.images]
        view = request.view
        yield from training.update(
            [
                QuickView(sources[pair], square.plane, square.rows, square.columns, labels)
                for pair, square, labels in strokes
            ],
            QuickView(sources[request.pair], view.plane, view.rows, view.columns),
        )

    def search(
        self, image: ImageSource, places: Sequence[tuple[int, slice, slice]]
    ) -> Generator[ev.Event, None, None]:
        """Look for the least certain of some places (plane, rows, columns); see `PlaceFound`."""
        yield from self._in_turn(self._search(image, places))

    def _search(
        self, image: ImageSource, places: Sequence[tuple[int, slice, slice]]
    ) -> Generator[ev.Event, None, None]:
        if self._training is None:
            raise AffmaeError("nothing is learned yet: paint, and let it predict first")
        from napari_affmae.engine import QuickView
        from napari_affmae.engine.quick.search import find_least_certain

        source = self._training.normalize(image)
        views = [QuickView(source, *place) for place in places]
        yield from find_least_certain(self._training, views)

    def judge(self) -> Generator[ev.Event, None, None]:
        """Score what was learned on strokes that are held out; ends with `HeldOut`."""
        yield from self._in_turn(self._judge())

    def _judge(self) -> Generator[ev.Event, None, None]:
        if self._training is None:
            raise AffmaeError("nothing is learned yet: paint, and let it predict first")
        yield from self._training.judge()

    def look_ahead(
        self, image: ImageSource, views: Sequence[LayerView]
    ) -> Generator[ev.Event, None, None]:
        """Predict views with what is learned, while no other job wants its turn."""
        for view in views:
            done = False
            while not done:
                # What was computed of a view that had to make way is kept.
                done = yield from self._in_turn(self._look_ahead(image, view))

    def _look_ahead(self, image: ImageSource, view: LayerView) -> Generator[ev.Event, None, bool]:
        if self._training is None:
            return True
        from napari_affmae.engine import QuickView

        source = self._training.normalize(image)
        part = QuickView(source, view.plane, view.rows, view.columns)
        for event in self._training.predict(part):
            if isinstance(event, ev.ViewPredicted):
                yield PredictedAhead(view, event)
            elif self._waiting:
                return False
            else:
                yield event
        return True

    def save(self, path: Path, classes: tuple[LabelClass, ...]) -> Generator[ev.Event, None, None]:
        """Write the model, with the names and colours that its classes have now."""
        yield from self._in_turn(self._save(path, classes))

    def _save(self, path: Path, classes: tuple[LabelClass, ...]) -> Generator[ev.Event, None, None]:
        if self._training is None:
            raise AffmaeError("there is no model to save yet: paint, and let it predict first")
        known = {item.value: item for item in classes}
        self._training.rename([known.get(item.value, item) for item in self._training.classes])
        yield Saved(self._training.save(path))

    def _in_turn(self, job: Generator[ev.Event, None, R]) -> Generator[ev.Event, None, R]:
        """Run a job when no other is running; while it waits, it keeps a thread of the pool."""
        me = object()
        self._waiting.add(me)
        try:
            while not self._lock.acquire(timeout=_WAIT_SECONDS):
                yield _InTurn()
        finally:
            self._waiting.discard(me)
        try:
            yield _InTurn()
            return (yield from job)
        finally:
            self._lock.release()

    def _renew(self, setup: QuickSetup) -> Generator[ev.Event, None, None]:
        from napari_affmae.engine import QuickTraining

        self._training = self._setup = None
        self._training = training = QuickTraining(
            setup.pretrained,
            setup.images,
            setup.classes,
            setup.config,
            ignore_value=setup.ignore_value,
            kept=kept_features(),
        )
        self._setup = setup
        yield training.started
        for note in training.notes:
            yield ev.Notice(note, "info")


def _read(setup: QuickSetup, request: QuickRequest) -> list[tuple[int, Square, Any]]:
    """Read the painted squares."""
    from napari_affmae.data.labels import read_labels

    return [
        (
            pair,
            square,
            read_labels(setup.labels[pair], square.plane, square.rows, square.columns),
        )
        for pair, square in request.strokes
    ]
