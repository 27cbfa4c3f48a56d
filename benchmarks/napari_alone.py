"""How long napari alone keeps a user waiting for what `walk.py` does with the plugin.

Adds layers as the docks do, and shows napari's own table of a layer's features, without the
plugin: what the stages of `walk.py` take beyond this is the plugin's. Needs a screen, as that does.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
import torch
from environment import RESULTS, WIDTH, describe, write_csv
from lag import LagMeter, live
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

_OBJECTS, _MEASURES = 275, 16


def main() -> None:
    """Do each thing once, in the order of a walk; print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="a folder of planes of one size")
    images = sorted(parser.parse_args().images.iterdir())
    viewer = napari.Viewer()
    viewer.window.resize(1500, 960)
    viewer.open([str(path) for path in images], stack=True, plugin="napari")
    rest(3)
    meter, rows = LagMeter(), []

    def act(name: str, action: Callable[[], Any]) -> None:
        rest(0.2)
        meter.take()
        action()
        rest(1)
        rows.append({"action": name} | meter.take().described())

    shape = viewer.layers[0].data.shape
    empty, objects = np.zeros(shape, np.uint8), np.arange(np.prod(shape)) % (_OBJECTS + 1)
    rng = np.random.default_rng(0)
    measures = {f"measure {n}": rng.random(_OBJECTS + 1) for n in range(_MEASURES)}
    act("first layer of labels", lambda: viewer.add_labels(empty))
    act("paint mode", lambda: setattr(viewer.layers[-1], "mode", "paint"))
    act("another layer of labels", lambda: viewer.add_labels(empty))
    act("layer of an image", lambda: viewer.add_image(empty.astype(np.float32)))
    act(
        "labels with a table of features",
        lambda: viewer.add_labels(objects.reshape(shape).astype(np.int32), features=measures),
    )
    act(
        "napari's dock of that table",
        lambda: viewer.window.add_plugin_dock_widget("napari", "Features table widget"),
    )
    table = Table(*rows[0], box=MARKDOWN)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=WIDTH).print(table)
    write_csv(RESULTS / "napari_alone.csv", [row | describe(torch.device("cpu")) for row in rows])
    viewer.close()


def rest(seconds: float) -> None:
    """Let the window live for a while."""
    live(lambda: False, seconds)


if __name__ == "__main__":
    main()
