"""The line that says how far the work is."""

from collections import Counter
from typing import Any

import pytest

from napari_affmae.data import default_classes
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.finetune.state_line import Model, describe

CLASSES = default_classes([1, 2])
_PAINTED = "2 of 2 classes painted on 2 planes"


@pytest.mark.parametrize(
    ("counts", "planes", "model", "told"),
    [
        ({}, 0, Model.NONE, "0 of 2 classes painted. Next: paint some strokes of 'class 1'."),
        (
            {1: 5},
            1,
            Model.NONE,
            "1 of 2 classes painted on 1 plane. Next: paint some strokes of 'class 2'.",
        ),
        (
            {1: 5, 2: 9},
            2,
            Model.NONE,
            f"{_PAINTED}. Next: switch 'Predict while painting' on.",
        ),
        (
            {1: 5, 2: 9},
            2,
            Model.UNSAVED,
            f"{_PAINTED}, model not saved. Next: paint where it is wrong, or save the model.",
        ),
        ({1: 5, 2: 9}, 2, Model.SAVED, f"{_PAINTED}, model saved. Next: segment with it."),
    ],
)
def test_how_far_the_work_is(counts: Any, planes: int, model: Model, told: str) -> None:
    said = describe(Counter(counts), CLASSES, planes=planes, has_pair=True, model=model)
    assert said == told


def test_the_line_follows_the_dock(viewer: Any, image: Any, qtbot: Any, drive: Any) -> None:
    dock = FinetuneDock(viewer)
    qtbot.addWidget(dock)

    def wait_for(words: str) -> None:
        qtbot.waitUntil(lambda: words in dock.state.text(), timeout=60_000)

    assert dock.state.text() == "Next: open an image, and press 'New labels layer'."
    dock.pairs.new_button.click()
    (_, labels) = dock.pairs.pairs()[0]
    wait_for("0 of 2 classes painted.")
    for plane in (0, 2):
        drive.paint_both(labels, plane)
    wait_for(f"{_PAINTED}. Next")
    dock.state.note_learned()
    wait_for("not saved")
    dock.state.note_saved()
    dock.state.note_learned()
    wait_for("segment with it.")
    drive.paint(labels, 1, (1, 50, 50))
    wait_for("not saved")
