"""Which run is chosen until the user chooses."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from napari_affmae.config import WORTHWHILE_CROPS
from napari_affmae.data import default_classes
from napari_affmae.engine.inference.fitting import (
    Subject,
    is_short,
    misfit,
    to_segment_with,
    to_start_from,
)
from napari_affmae.engine.store.records import ProbeGain
from napari_affmae.engine.store.registry import RunSummary

FIB = Subject("fib", 1, (8.0, 8.0))
LONG = WORTHWHILE_CROPS // 16
MOST = 20 * LONG
BETTER = ProbeGain(start=0.5, end=0.55, margin=0.02)
NO_BETTER = ProbeGain(start=0.5, end=0.505, margin=0.02)


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


def gained(name: str, probe: ProbeGain | None = BETTER, **facts: Any) -> RunSummary:
    return run(name, probe=probe, **{"pretrained": "em-nano", **facts})


@pytest.mark.parametrize(
    ("runs", "chosen"),
    [
        ([NANO, SMALL], "em-nano"),
        # Labels say that it is better than they are, however few crops that took,
        ([SMALL, NANO, gained("own", steps=30)], "own"),
        # or do not say so, however many it has seen,
        ([NANO, gained("own", NO_BETTER, steps=MOST, sources=("fib",))], "em-nano"),
        ([NANO, gained("own", None, steps=MOST, sources=("fib",))], "em-nano"),
        # or only that it is better than random weights, or than others unknown.
        ([NANO, gained("own", pretrained=None, sources=("fib",))], "em-nano"),
        ([NANO, gained("own", pretrained="/gone", sources=("fib",))], "em-nano"),
        # Of several, what learned from this image, then the newest.
        ([NANO, gained("newer"), gained("older")], "newer"),
        ([NANO, gained("newer"), gained("own", sources=("fib",))], "own"),
        # What went on from a better run has to be better than that,
        ([NANO, gained("second", pretrained="/runs/own"), gained("/runs/own")], "second"),
        (
            [NANO, gained("second", NO_BETTER, pretrained="/runs/own"), gained("/runs/own")],
            "/runs/own",
        ),
        # and this one better than the weights.
        ([NANO, gained("second", pretrained="/own"), gained("/own", NO_BETTER)], "em-nano"),
        # A folder that was used again may have the name of what it went on from.
        ([NANO, gained("/a", pretrained="/b"), gained("/b", pretrained="/a")], "em-nano"),
        # Images of other pixels or channels are of another kind.
        ([NANO, gained("tem", pixel_size=(2.0, 2.0))], "em-nano"),
        ([NANO, gained("alike", pixel_size=(9.0, 9.0))], "alike"),
        ([NANO, gained("colours", in_channels=3)], "em-nano"),
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
    assert to_start_from([NANO, gained("own")], None) == NANO


def test_what_is_better_is_not_too_short() -> None:
    assert is_short(gained("own", NO_BETTER, steps=30))
    assert not is_short(gained("own", steps=30))
    assert not is_short(gained("own", None))


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
