import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from napari_affmae.cli.progress import Reporter, meter
from napari_affmae.engine import events as ev
from napari_affmae.engine.wording import duration

STARTED = ev.RunStarted(
    device="CPU, 2 threads",
    on_gpu=False,
    precision="fp32",
    backend="PyTorch",
    parameters=2_300_000,
    batch=8,
    micro_batch=4,
    step=20,
    total_steps=100,
)


def step(number: int, seconds_left: float | None = None) -> ev.StepDone:
    return ev.StepDone(
        step=number,
        total_steps=100,
        loss=0.25,
        learning_rate=1e-3,
        images_per_second=3.5,
        seconds_left=seconds_left,
    )


def told(*events: ev.Event, terminal: bool = False, planes: int | None = None) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200)
    with meter(console, "pretrain") as progress:
        reporter = Reporter(console, progress, planes=planes)
        for event in events:
            reporter.show(event)
    return text.getvalue()


def test_what_a_run_starts_with_is_told_for_the_first_of_many_images() -> None:
    text = io.StringIO()
    console = Console(file=text, width=200)
    with meter(console, "segment") as progress:
        for number in range(2):
            reporter = Reporter(console, progress, start=number == 0)
            for level in ("info", "warning"):
                reporter.show(ev.Notice("kernels come", level=level))
    assert text.getvalue().count("info: kernels come") == 1
    assert text.getvalue().count("warning: kernels come") == 2


def test_start_names_device_precision_backend_and_parts() -> None:
    text = told(STARTED)
    for part in ("CPU, 2 threads", "fp32", "PyTorch", "2.3 M", "batch: 8 (2 parts)", "step 20"):
        assert part in text


def test_expected_time_is_told_once_when_it_is_known() -> None:
    text = told(step(1), step(2, 120.0), step(3, 119.0))
    assert text.count("expected time") == 1
    assert "expected time: 2 min (3.5 images/s" in text


def test_a_log_gets_the_first_and_the_last_line_of_quick_steps() -> None:
    lines = told(*(step(number) for number in range(1, 101))).splitlines()
    assert [line.split()[1] for line in lines] == ["1/100", "100/100"]


def test_a_terminal_gets_a_bar_with_speed_loss_and_time_left() -> None:
    text = told(step(50, 3600.0), terminal=True)
    for part in ("50/100", "loss 0.2500", "3.5 images/s", "60 min left"):
        assert part in text


def test_log_lines_hold_no_control_characters() -> None:
    text = told(STARTED, ev.Notice("[red]brackets[/red] stay", source="a.tif"), step(1))
    assert "warning: a.tif: [red]brackets[/red] stay" in text
    assert not re.search(r"\x1b|\r", text)


def test_tiles_of_a_stack_are_progress_over_its_planes() -> None:
    events = [ev.TileDone(done, 4, plane, 3.0) for plane in range(3) for done in (2, 4)]
    text = told(*events, planes=3)
    assert text.splitlines()[-1] == "pretrain: 3/3  tile 4 of 4 of plane 3  3 s left"
    assert "2/3" in told(events[3], planes=3, terminal=True)


def test_tiles_of_a_validation_are_no_progress() -> None:
    assert told(ev.TileDone(done=4, total=4, plane=2, seconds_left=None)) == ""


@pytest.mark.parametrize(
    ("event", "parts"),
    [
        (ev.MicroBatchHalved(step=7, micro_batch=2, accumulate=4), ("step 7", "4 x 2")),
        (
            ev.Validated(step=9, loss=0.5, mean_iou=0.61, mean_dice=0.7, best=True),
            ("0.5000", "mIoU 0.610", "mDice 0.700", "best"),
        ),
        (ev.Notice("a finding", level="info"), ("info: a finding",)),
        (ev.RunFinished(step=10, path=Path("runs/a")), (str(Path("runs/a")),)),
    ],
)
def test_words_for_an_event(event: ev.Event, parts: tuple[str, ...]) -> None:
    text = told(event)
    for part in parts:
        assert part in text


def test_every_event_has_words_or_is_known_to_need_none() -> None:
    silent = (
        ev.PreviewReady(step=1, images={}),
        ev.CheckpointSaved(step=1, path=Path("c")),
        ev.PlaneDone(plane=0, planes=1, labels=np.zeros((2, 2), np.uint8)),
    )
    assert told(*silent) == ""
    with pytest.raises(TypeError, match="no words"):
        told(ev.Event())


@pytest.mark.parametrize(
    ("seconds", "words"), [(45, "45 s"), (100, "2 min"), (5400, "1 h 30 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
