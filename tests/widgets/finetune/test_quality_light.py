"""The light that says whether what was learned is good enough."""

from typing import Any

import pytest

from napari_affmae.engine.events import HeldOut
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.finetune.quality_light import Light, describe

MILLISECONDS = 300_000


def test_it_judges_what_was_painted_and_again_after_more_strokes(
    dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, drive: Any
) -> None:
    viewer.dims.set_current_step(0, 2)
    dock.quick.form.control("steps").setValue(5)
    quality = dock.quick.quality
    assert quality.light is Light.UNKNOWN

    def judged() -> bool:
        return not (quality.is_busy or dock.quick.is_busy)

    drive.paint(labels, 1, (2, 20, 20))
    drive.paint(labels, 2, (2, 40, 60))
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        dock.quick.predict_button.setChecked(True)
    qtbot.waitUntil(judged, timeout=MILLISECONDS)
    assert quality.light is Light.UNKNOWN
    assert "a second stroke of 'background' and 'structure'" in quality.text.text()

    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        drive.paint_both(labels, 2)
    qtbot.waitUntil(judged, timeout=MILLISECONDS)
    assert quality.light is not Light.UNKNOWN
    assert "(4 strokes on 1 plane" in quality.text.text()

    # Looking around does not change what was learned from, so it is not judged again.
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        viewer.dims.set_current_step(0, 0)
    assert not quality.is_busy
    dock.full_button.setChecked(True)
    assert quality.isHidden()


def test_it_makes_way_for_the_next_prediction(
    dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, drive: Any
) -> None:
    viewer.dims.set_current_step(0, 2)
    dock.quick.form.control("steps").setValue(2000)  # it would judge for long
    drive.paint_both(labels, 2)
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        dock.quick.predict_button.setChecked(True)
    quality = dock.quick.quality
    qtbot.waitUntil(lambda: quality._job.is_running, timeout=MILLISECONDS)
    dock.quick.form.control("steps").setValue(5)
    assert not quality.is_busy
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        drive.paint(labels, 1, (2, 100, 30))
    assert quality.is_busy


@pytest.mark.parametrize(
    ("score", "low", "light", "words"),
    [
        (0.95, 0.8, Light.GOOD, "<b>Good: 95 %"),
        (0.95, 0.6, Light.FAIR, "Promising, but few strokes"),
        (0.8, 0.7, Light.FAIR, "<b>Fair: 80 %"),
        (0.5, 0.3, Light.POOR, "<b>Not good yet: 50 %"),
    ],
)
def test_words(score: float, low: float, light: Light, words: str) -> None:
    by_class = {"membrane": score - 0.02, "<inside>": score + 0.02}
    found, text = describe(HeldOut(score, low, 0.99, 12, 2, by_class, ("nucleus",)))
    assert found is light
    assert words in text
    assert "12 strokes on 2 planes" in text
    assert f"likely {100 * low:.0f} % to 99 %" in text
    assert "Weakest: 'membrane'" in text
    assert "'nucleus' has one stroke" in text
