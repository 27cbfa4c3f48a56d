"""What a user does, from an opened stack to a segmentation, through the docks' own controls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_affmae.engine import list_runs
from napari_affmae.widgets.running.run_choice import RunChoice
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel

PLUGIN = "napari-affmae"
TINY = {"crop": 64, "batch": 1, "device": "cpu", "validation_steps": 2}


def open_dock(viewer: Any, name: str) -> Any:
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, name)
    return dock


def test_pretrain_paint_finetune_segment(
    viewer: Any,
    volume: tuple[np.ndarray, np.ndarray],
    runs: Path,
    finish: Callable[[RunPanel], Outcome],
    listed: Callable[[RunChoice], Path | None],
) -> None:
    image = viewer.add_image(volume[0], name="stack", scale=(8, 8, 8), units="nm")

    finetuning = open_dock(viewer, "2. Fine-tune")
    pretraining = open_dock(viewer, "1. Pretrain")
    pretraining.sources.check_layer(image)
    pretraining.training.form.set_values(TINY)
    pretraining.training.length.set_values(3, None)
    pretraining.panel.start_button.click()
    assert finish(pretraining.panel) is Outcome.FINISHED

    finetuning.pairs.new_button.click()
    ((chosen, labels),) = finetuning.pairs.pairs()
    assert chosen is image
    for plane in (0, 2):
        for value in (1, 2):
            labels.paint((plane, 30 * value, 40 * value), value)
    (pretrained,) = list_runs(runs)
    finetuning.start_from.choose(pretrained.path)
    assert listed(finetuning.start_from) == pretrained.path
    finetuning.full_button.setChecked(True)
    finetuning.full.training.form.set_values(TINY)
    finetuning.full.training.length.set_values(3, None)
    finetuning.panel.start_button.click()
    assert finish(finetuning.panel) is Outcome.FINISHED
    segmenting = open_dock(viewer, "3. Segment")
    trained = next(run for run in list_runs(runs) if run.kind == "finetune")
    assert trained.pretrained == str(pretrained.path)
    segmenting.run_choice.choose(trained.path)
    assert listed(segmenting.run_choice) == trained.path
    segmenting.form.set_values({"device": "cpu"})
    segmenting.image.choose_layer(image)
    segmenting.region.setCurrentText("everything")
    segmenting.panel.start_button.click()
    assert finish(segmenting.panel) is Outcome.FINISHED

    result = next(layer for layer in viewer.layers if layer.name.endswith(": classes"))
    assert isinstance(result, Labels)
    assert result.data.shape == volume[0].shape
    assert set(np.unique(result.data)) <= {1, 2}
    np.testing.assert_array_equal(result.extent.world, image.extent.world)
    assert result.units == image.units
