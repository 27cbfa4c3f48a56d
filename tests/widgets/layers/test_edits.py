"""Which rectangle of a labels layer has changed since a revision."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_affmae.widgets.layers import edits
from napari_affmae.widgets.layers.layer_sources import LayerLabels

SHAPE = (4, 96, 128)
WHOLE = (slice(0, 96), slice(0, 128))


@pytest.fixture
def layer() -> Labels:
    layer = Labels(np.zeros(SHAPE, np.uint8))
    layer.brush_size = 7
    return layer


@pytest.fixture
def source(layer: Labels) -> LayerLabels:
    return LayerLabels(layer)


def check(source: LayerLabels, layer: Labels, change: Callable[[], Any], plane: int) -> None:
    """Check that the rectangle holds the change, and no more than a box around it."""
    before, revisions = layer.data.copy(), [source.revision(n) for n in range(SHAPE[0])]
    change()
    changed = np.argwhere(layer.data != before)
    assert set(changed[:, 0]) == {plane}
    (top, left), (bottom, right) = changed[:, 1:].min(0), changed[:, 1:].max(0)
    expected = (slice(top, bottom + 1), slice(left, right + 1))
    assert source.changed_since(plane, revisions[plane]) == expected
    for other in set(range(SHAPE[0])) - {plane}:
        assert source.changed_since(other, revisions[other]) is None


def test_strokes_erasures_and_fills(source: LayerLabels, layer: Labels) -> None:
    check(source, layer, lambda: layer.paint((2, 20, 30), 1), 2)
    check(source, layer, lambda: layer.paint((2, 20, 30), 0), 2)
    check(source, layer, lambda: layer.paint((1, 50, 60), 3), 1)
    layer.n_edit_dimensions = 2
    check(source, layer, lambda: layer.fill((1, 50, 60), 4), 1)
    where = tuple(np.array(part) for part in ((3, 3), (10, 40), (5, 9)))
    check(source, layer, lambda: layer.data_setitem(where, 2), 3)


def test_a_stroke_of_several_parts_is_one_change(source: LayerLabels, layer: Labels) -> None:
    def drag() -> None:
        with layer.block_history():
            for place in ((2, 20, 30), (2, 40, 50), (2, 60, 55)):
                layer.paint(place, 1)

    check(source, layer, drag, 2)
    assert source.revision(2) == 1


def test_undo_and_redo(source: LayerLabels, layer: Labels) -> None:
    layer.paint((2, 20, 30), 1)
    layer.paint((0, 70, 100), 1)
    check(source, layer, layer.undo, 0)
    check(source, layer, layer.undo, 2)
    check(source, layer, layer.redo, 2)


def test_changes_since_earlier_revisions_add_up(source: LayerLabels, layer: Labels) -> None:
    revisions = [source.revision(1)]
    for place in ((1, 20, 30), (1, 60, 90)):
        layer.paint(place, 1)
        revisions.append(source.revision(1))
    assert source.changed_since(1, revisions[0]) == (slice(17, 64), slice(27, 94))
    assert source.changed_since(1, revisions[1]) == (slice(57, 64), slice(87, 94))
    assert source.changed_since(1, revisions[2]) is None


def test_the_memory_of_many_strokes_is_bounded(source: LayerLabels, layer: Labels) -> None:
    first = source.revision(1)
    for step in range(3 * edits._MOST):
        layer.paint((1, 10, 10 + step), 1 + step % 2)
    last = source.revision(1)
    layer.paint((1, 60, 90), 1)
    assert len(source.edits._planes[1].changes) == edits._MOST
    assert source.changed_since(1, last) == (slice(57, 64), slice(87, 94))
    rows, columns = source.changed_since(1, first)
    assert (rows, columns) == (slice(7, 64), slice(7, 94))


def test_of_other_data_the_whole_plane_may_be_new(source: LayerLabels, layer: Labels) -> None:
    layer.paint((1, 20, 30), 1)
    before = [source.revision(plane) for plane in range(SHAPE[0])]
    layer.data = np.ones(SHAPE, np.uint8)
    for plane in range(SHAPE[0]):
        assert source.changed_since(plane, before[plane]) == WHOLE
        assert source.changed_since(plane, source.revision(plane)) is None
    check(source, layer, lambda: layer.paint((1, 20, 30), 5), 1)
    check(source, layer, lambda: layer.paint((0, 20, 30), 5), 0)


def test_a_revision_that_never_was_tells_nothing(source: LayerLabels, layer: Labels) -> None:
    layer.paint((1, 20, 30), 1)
    for revision in (-1, 7):
        assert source.changed_since(1, revision) == WHOLE


def test_volumes_of_several_axes_and_single_planes() -> None:
    volume = Labels(np.zeros((2, 3, 64, 64), np.uint8))
    volume.brush_size = 3
    source = LayerLabels(volume)
    volume.paint((1, 2, 10, 20), 1)
    assert source.changed_since(5, 0) == (slice(9, 12), slice(19, 22))
    plane = Labels(np.zeros((64, 64), np.uint8))
    plane.brush_size = 3
    source = LayerLabels(plane)
    plane.paint((0, 20), 1)
    assert source.changed_since(0, 0) == (slice(0, 2), slice(19, 22))


def test_each_event_is_decoded_once(layer: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Any] = []
    decode = edits.edited_indices
    monkeypatch.setattr(
        edits, "edited_indices", lambda edit, ndim: decoded.append(edit) or decode(edit, ndim)
    )
    source, heard = LayerLabels(layer), []
    source.edits.on_edit = heard.extend
    layer.paint((2, 20, 30), 1)
    assert len(decoded) == len(heard) == 1


def test_a_worker_may_ask_while_the_user_paints(source: LayerLabels, layer: Labels) -> None:
    """Whoever copies the rectangles that it is told has all strokes in the end."""
    copied, seen = np.zeros(SHAPE[1:], np.uint8), source.revision(1)
    is_over, wrong = threading.Event(), []

    def follow() -> None:
        nonlocal seen
        try:
            while True:
                last = is_over.is_set()
                revision = source.revision(1)
                part = source.changed_since(1, seen)
                if part is not None:
                    copied[part] = layer.data[1][part]
                seen = revision
                if last:
                    return
        except Exception as error:  # noqa: BLE001 - for the test's own thread
            wrong.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    places = np.random.default_rng(0).integers(0, (96, 128), (200, 2))
    for number, (row, column) in enumerate(places):
        layer.paint((1, row, column), 1 + number % 3)
        if number % 7 == 0:
            layer.undo()
    is_over.set()
    thread.join(30)
    assert not wrong
    np.testing.assert_array_equal(copied, layer.data[1])
