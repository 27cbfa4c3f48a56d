"""A pretraining that labels call better takes the place of what painting started from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_affmae.engine.training.gauge.probe import Probe
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.running.ended_runs import ended_runs
from napari_affmae.widgets.running.run_panel import Outcome

MILLISECONDS = 300_000


def pretrain(viewer: Any, finish: Any, listed: Any, scores: list[float]) -> Path:
    """Make two steps of pretraining in its dock, of which the probe says these scores."""
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "1. Pretrain")
    listed(dock.training)
    listed(dock.start_from)
    dock.training.length.set_values(2, None)
    dock.training.form.set_values({"crop": 64, "batch": 2, "device": "cpu"})
    dock.sources.check_layer(viewer.layers["em"])
    dock.judge.refresh()
    assert dock.judge.pair() is not None
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
    assert not scores
    run: Path = dock.training.run
    return run


@pytest.mark.parametrize(("end", "is_better"), [(0.6, True), (0.41, False)])
def test_painting_goes_on_from_a_pretraining_if_the_probe_calls_it_better(
    dock: FinetuneDock,
    viewer: Any,
    labels: Any,
    weights: Path,
    drive: Any,
    qtbot: Any,
    finish: Callable[..., Outcome],
    listed: Callable[..., Path | None],
    monkeypatch: pytest.MonkeyPatch,
    end: float,
    is_better: bool,
) -> None:
    scores = [0.4, end]
    monkeypatch.setattr(Probe, "score", lambda *_: scores.pop(0))
    dock.quick.form.control("steps").setValue(5)
    drive.paint_both(labels, 1)
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        dock.quick.predict_button.setChecked(True)
        drive.paint_both(labels, 0)
    assert listed(dock.start_from) == weights
    run = pretrain(viewer, finish, listed, scores)
    assert listed(dock.start_from) == (run if is_better else weights)
    told = " ".join(text for _, text in dock.quick.messages.texts)
    assert ("(probe 0.400 before, 0.600 after)" in told) is is_better
    assert ("choose 'em-nano' under 'Start from'" in told) is is_better
    if is_better:
        qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS).wait()
        assert dock.quick._session._setup.pretrained == run
        # What the user chooses stays chosen.
        dock.start_from.choose(weights)
        ended_runs().happened.emit()
        assert listed(dock.start_from) == weights
