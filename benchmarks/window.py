"""Lag of napari's window while a network trains beside it, and what that costs the training.

The same run is made twice in processes of their own: from the command line's
engine, and from the pretraining dock of a real viewer, whose event loop is
watched by a timer. In the second half of that run the viewer shows another
plane after every step. Needs a screen; without one: ``xvfb-run python benchmarks/window.py``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import RESULTS, WIDTH, describe, write_csv
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from napari_affmae.config import PretrainConfig
from napari_affmae.data import open_source, synthetic_sample
from napari_affmae.engine import pretrain
from napari_affmae.engine.events import StepDone

_WARM_UP = 3  # steps that are not counted


def main() -> None:
    """Measure both, print and save."""
    arguments = parse_arguments()
    if arguments.inside:
        measure = in_window if arguments.inside == "window" else alone
        print(json.dumps(measure(settings(arguments))))
        return
    from lag import TARGETS

    # The run alone is measured before and after, so that a drift of the machine shows.
    found = {name: in_process(place, arguments) for name, place in _ORDER.items()}
    before, inside, after = found.values()
    step = (before["step"] + after["step"]) / 2
    row = {
        "preset": arguments.preset,
        "crop": arguments.crop,
        "steps": arguments.steps,
        "step alone, s": f"{before['step']:.3f}, {after['step']:.3f}",
        "step in napari, s": round(inside["step"], 3),
        "step while the user looks around, s": round(inside["looking"], 3),
        "step / step alone": round(inside["step"] / step, 3),
        **{name: inside[name] for name in inside if name.endswith(", ms")},
    }
    targets = TARGETS | {"step / step alone": 1.15}
    table = Table("", "measured", "target", box=MARKDOWN)
    for name, value in row.items():
        table.add_row(name, str(value), f"≤ {targets[name]}" if name in targets else "")
    Console(width=WIDTH).print(table)
    write_csv(RESULTS / "window.csv", [row | describe(torch.device("cpu"))])


_ORDER = {"before": "alone", "inside": "window", "after": "alone"}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--inside", choices=("alone", "window"), help=argparse.SUPPRESS)
    return parser.parse_args()


def settings(arguments: argparse.Namespace) -> PretrainConfig:
    """Make the settings of the run."""
    return PretrainConfig(
        preset=arguments.preset,
        crop=arguments.crop,
        batch=arguments.batch,
        steps=arguments.steps,
        device="cpu",
        validation_steps=10,
    )


def in_process(place: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure in a fresh process, which has the threads and caches of a fresh start."""
    words = [
        f"--{name}={getattr(arguments, name)}" for name in ("preset", "crop", "batch", "steps")
    ]
    done = subprocess.run(
        [sys.executable, __file__, f"--inside={place}", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def alone(config: PretrainConfig) -> dict[str, float]:
    """Run as the command line does."""
    source = open_source(synthetic_sample()[0], axes="ZYX", name="sample")
    with tempfile.TemporaryDirectory() as folder:
        rates = [
            event.images_per_second
            for event in pretrain([source], config, Path(folder) / "run")
            if isinstance(event, StepDone) and event.step > _WARM_UP
        ]
    return {"step": len_of(config) / float(np.median(rates))}


def in_window(config: PretrainConfig) -> dict[str, float]:
    """Run in the dock of a viewer, and watch the event loop."""
    import napari
    from lag import LagMeter
    from qtpy.QtCore import QEventLoop, QTimer

    from napari_affmae.widgets.parts import preferences

    folder = Path(tempfile.mkdtemp())
    # The user's stay as they are.
    preferences.preferences_file = lambda: folder / "preferences.json"
    preferences.remember(runs=folder / "runs")
    viewer = napari.Viewer()
    layer = viewer.add_image(synthetic_sample()[0], name="sample")
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "1. Pretrain")
    dock.sources.check_layer(layer)
    dock.training.form.set_values(config.model_dump())
    dock.training.length.set_values(config.steps, None)
    rates: tuple[list[float], list[float]] = ([], [])
    meter = LagMeter()

    def take(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == _WARM_UP:
            meter.take()  # what was before does not count
        if isinstance(event, StepDone) and event.step > _WARM_UP:
            looking = 2 * event.step > config.steps
            rates[looking].append(event.images_per_second)
            if looking:
                viewer.dims.set_current_step(0, event.step % layer.data.shape[0])

    dock.panel.happened.connect(take)
    loop = QEventLoop()
    dock.panel.ended.connect(loop.quit)
    QTimer.singleShot(3000, dock.panel.start_button.click)
    loop.exec_()
    lags = meter.take().described()
    viewer.close()
    step, looking = (len_of(config) / float(np.median(part)) for part in rates)
    return {"step": step, "looking": looking, **lags}


def len_of(config: PretrainConfig) -> int:
    """Return the crops of a step."""
    return int(config.batch)


if __name__ == "__main__":
    main()
