"""What the card of a run says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae.config import WORTHWHILE_CROPS, PretrainConfig
from napari_affmae.data import open_source
from napari_affmae.engine import pretrain
from napari_affmae.engine.inference.fitting import Subject
from napari_affmae.engine.store.records import ProbeGain
from napari_affmae.engine.store.registry import RunSummary, list_runs
from napari_affmae.widgets.running.model_card import ModelCard


@pytest.fixture
def pretrained(runs: Path, volume: tuple[np.ndarray, np.ndarray]) -> RunSummary:
    source = open_source(volume[0], axes="ZYX", name="em")
    config = PretrainConfig(crop=64, batch=2, steps=3, device="cpu")
    for _ in pretrain([source], config, runs / "em", start=None):
        pass
    (summary,) = list_runs(runs)
    return summary


def test_the_card_says_what_a_pretraining_saw(
    pretrained: RunSummary, qtbot: Any, make_napari_viewer: Callable[..., Any]
) -> None:
    make_napari_viewer()
    card = ModelCard()
    qtbot.addWidget(card)
    card.resize(320, 200)
    card.show_run(pretrained, Subject("em", 1, None))
    for words in ("learned from em", "6 crops in 3 steps", "loss on held-out images"):
        assert words in card.text()
    ((level, text),) = card.warnings.texts
    assert level == "warning"
    assert "no better than a network that has learned nothing" in text
    qtbot.waitUntil(card.picture.isVisible)
    # Four pictures of one crop beside each other.
    assert card.picture.pixmap().width() == pytest.approx(4 * card.picture.pixmap().height(), abs=4)
    card.show_run(replace(pretrained, pretrained="em-nano"), None)
    ((_, text),) = card.warnings.texts
    assert "no better than em-nano" in text
    probe = ProbeGain(start=0.5, end=0.55, margin=0.02)
    card.show_run(replace(pretrained, pretrained="em-nano", probe=probe), None)
    told = "labels say that its features are better than those of em-nano"
    assert f"{told} (probe 0.500 before, 0.550 after)" in card.text()
    assert not card.warnings.texts
    card.show_run(replace(pretrained, crops=WORTHWHILE_CROPS), Subject("em", 3, None))
    ((_, text),) = card.warnings.texts
    assert "it takes 1 channel, the image has 3" in text
    card.show_run(None)
    assert card.isHidden()
