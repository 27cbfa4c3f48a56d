"""Which run is chosen until the user chooses, and what its card says."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae.config import WORTHWHILE_CROPS, PretrainConfig
from napari_affmae.data import default_classes, open_source
from napari_affmae.engine import pretrain
from napari_affmae.engine.store.registry import RunSummary, list_runs
from napari_affmae.widgets.running.fitting import Subject, misfit, to_segment_with, to_start_from
from napari_affmae.widgets.running.model_card import ModelCard

FIB = Subject("fib", 1, (8.0, 8.0))
LONG = WORTHWHILE_CROPS // 16
MOST = 20 * LONG


def run(name: str, kind: Any = "pretrain", steps: int = LONG, **facts: Any) -> RunSummary:
    created = datetime(2026, 1, 1, tzinfo=UTC)
    facts = {"in_channels": 1, "crops": 16 * steps, "finished": True, **facts}
    return RunSummary(Path(name), name, kind, created, steps=steps, **facts)


@pytest.mark.parametrize(
    ("runs", "chosen"),
    [
        # A short run on noise is newer than one that is worth starting from.
        ([run("noise", steps=30), run("good")], "good"),
        # Where all are short, the longest.
        ([run("noise", steps=30), run("longer", steps=300)], "longer"),
        # Of those that are long enough, what learned from this image, then the newest.
        ([run("newer", steps=2 * LONG), run("own", sources=("fib",))], "own"),
        ([run("newer"), run("older", steps=2 * LONG)], "newer"),
        # What learned from other pixel sizes comes after what fits.
        ([run("tem", pixel_size=(2.0, 2.0)), run("short", steps=30)], "short"),
        ([run("colours", in_channels=3)], None),
        ([run("nothing", steps=0)], None),
        ([run("model", kind="model")], None),
        ([], None),
    ],
)
def test_what_is_started_from(runs: list[RunSummary], chosen: str | None) -> None:
    found = to_start_from(runs, FIB)
    assert (found and found.name) == chosen


NANO = run("em-nano", "weights", steps=MOST)
SMALL = run("em-small", "weights", steps=MOST)


@pytest.mark.parametrize(
    ("runs", "chosen"),
    [
        ([NANO, SMALL], "em-nano"),
        # Not even a long run on this image is known to be better, unless it went on from them,
        ([NANO, run("own", sources=("fib",))], "em-nano"),
        ([NANO, run("own", sources=("fib",), pretrained="em-nano")], "own"),
        ([SMALL, NANO, run("own", sources=("fib",), pretrained="em-nano")], "own"),
        # and for long enough,
        ([NANO, run("short", steps=30, sources=("fib",), pretrained="em-nano")], "em-nano"),
        # or saw as much as they did.
        ([NANO, run("most", steps=MOST, sources=("fib",))], "most"),
        # Other images are no reason, however many.
        ([NANO, run("others", steps=MOST, sources=("tem",), pretrained="em-nano")], "em-nano"),
        ([NANO, run("tem", steps=MOST, sources=("fib",), pixel_size=(2.0, 2.0))], "em-nano"),
        # Weights for other channels, or damaged ones, are none.
        ([run("colours", "weights", in_channels=3), run("noise", steps=30)], "noise"),
        ([run("em-nano", "weights", problem="it is damaged")], None),
    ],
)
def test_shipped_weights_are_started_from_until_a_run_is_better(
    runs: list[RunSummary], chosen: str | None
) -> None:
    found = to_start_from(runs, FIB)
    assert (found and found.name) == chosen


def test_without_an_image_shipped_weights_are_started_from() -> None:
    most = run("most", steps=MOST, sources=("fib",))
    assert to_start_from([NANO, most], None) == NANO


CLASSES = default_classes([1, 2])


def model(name: str, **facts: Any) -> RunSummary:
    return run(name, "model", classes=CLASSES, **facts)


@pytest.mark.parametrize(
    ("runs", "chosen"),
    [
        ([model("tem", pixel_size=(2.0, 2.0), sources=("tem",))], None),
        ([model("unknown", sources=("other",))], None),
        ([model("colours", in_channels=3, sources=("fib",))], None),
        ([model("alike", pixel_size=(8.5, 8.5)), model("own", sources=("fib",))], "own"),
        ([model("newer", pixel_size=(8.0, 8.0)), model("alike", pixel_size=(8.0, 8.0))], "newer"),
    ],
)
def test_what_segments(runs: list[RunSummary], chosen: str | None) -> None:
    found = to_segment_with(runs, FIB)
    assert (found and found.name) == chosen
    assert to_segment_with(runs, None) is None


def test_other_classes_than_those_of_the_labels_do_not_fit() -> None:
    own = model("own", sources=("fib",))
    assert misfit(own, replace(FIB, classes=frozenset({"class 1", "class 2"}))) is None
    assert misfit(own, replace(FIB, classes=frozenset({"axon", "myelin"}))) is not None


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
    card.show_run(replace(pretrained, crops=WORTHWHILE_CROPS), Subject("em", 3, None))
    ((_, text),) = card.warnings.texts
    assert "it takes 1 channel, the image has 3" in text
    card.show_run(None)
    assert card.isHidden()
