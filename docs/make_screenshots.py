"""Makes the pictures of the README and the tutorial by doing what the tutorial says.

In an environment with the plugin and a Qt binding, on a screen of at least
1600 x 1000 pixels::

    xvfb-run -s "-screen 0 1600x1000x24" python docs/make_screenshots.py

With other options it shows what users with smaller screens and other themes see.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.settings import get_settings
from PIL import Image
from qtpy.QtCore import QEventLoop, Qt, QTimer
from scipy import ndimage

from napari_affmae.config import LabelClass
from napari_affmae.engine.store.starting_weights import starting_weights
from napari_affmae.widgets.parts import preferences
from napari_affmae.widgets.segment.correction_bar import CorrectionBar

PLUGIN = "napari-affmae"
STEPS = 400
PLANE = 10
MITOCHONDRION = "mitochondrion"
PAINTED = {"inside": "#4c9be8", "membrane": "#f5a742", MITOCHONDRION: "#d9668c"}

#: Takes a picture of a viewer under a name.
Shoot = Callable[[napari.Viewer, str], None]


def main() -> None:
    """Walk through the docks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--size", type=int, nargs=2, default=(1500, 960), help="of the window")
    parser.add_argument("--theme", default="dark", help="of napari")
    parser.add_argument(
        "--without-pretraining", action="store_true", help="leave its pictures, which take longest"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    shoot = partial(take_picture, arguments.out)
    folder = Path(tempfile.mkdtemp())
    # The user's own preferences and runs stay as they are.
    preferences.preferences_file = lambda: folder / "preferences.json"
    preferences.remember(runs=folder / "runs")
    usual_theme = get_settings().appearance.theme
    viewer = napari.Viewer()
    get_settings().appearance.theme = arguments.theme
    viewer.window.resize(*arguments.size)
    viewer.open_sample(PLUGIN, "synthetic_em")
    image, truth = viewer.layers
    truth.visible = False
    viewer.dims.set_current_step(0, PLANE)
    if not arguments.without_pretraining:
        pretrain(viewer, image, shoot)
    annotate(viewer, image, truth, shoot)
    segment(viewer, image, shoot)
    get_settings().appearance.theme = usual_theme
    viewer.close()


def wait(condition: Callable[[], bool], seconds: float = 900) -> None:
    """Let the window live until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the window did not come to where the picture is to be taken")
        rest(0.02)


def rest(seconds: float) -> None:
    """Let the window live for a while."""
    # A loop of its own: otherwise Qt would not destroy what is to be deleted later.
    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec_()


def take_picture(folder: Path, viewer: napari.Viewer, name: str) -> None:
    """Take a picture of the whole window."""
    rest(1)
    path = folder / f"{name}.png"
    picture = viewer.window.screenshot(canvas_only=False, flash=False)
    # A palette, for small files; of a window little else than the image has many greys.
    Image.fromarray(picture[..., :3]).quantize(256, dither=Image.Dither.NONE, kmeans=2).save(
        path, optimize=True
    )


def open_dock(viewer: napari.Viewer, name: str) -> tuple[Any, Any]:
    """Open one of the plugin's docks."""
    holder, dock = viewer.window.add_plugin_dock_widget(PLUGIN, name)
    viewer.reset_view()
    return holder, dock


def pretrain(viewer: napari.Viewer, image: Any, shoot: Shoot) -> None:
    """Pretrain for a few minutes, and show the tokens."""
    holder, dock = open_dock(viewer, "1. Pretrain")
    dock.sources.check_layer(image)
    dock.training.length.set_values(STEPS, None)
    dock.training.form.set_values({"crop": 96, "batch": 4, "validation_steps": 50})
    wait(lambda: "steps" in dock.training.plan.text())
    dock.panel.start_button.click()
    wait(lambda: len(dock.curves.points("training")[0]) > 0.9 * STEPS)
    shoot(viewer, "pretrain")
    wait(lambda: not dock.panel.is_running)
    before = len(viewer.layers)
    dock.tokens_button.click()
    wait(lambda: len(viewer.layers) == before + 4)
    shoot(viewer, "tokens")
    for layer in list(viewer.layers)[before:]:
        viewer.layers.remove(layer)
    viewer.window.remove_dock_widget(holder)


def annotate(viewer: napari.Viewer, image: Any, truth: Any, shoot: Shoot) -> None:
    """Paint a few strokes of each class, and watch the prediction follow, and how good it is."""
    holder, dock = open_dock(viewer, "2. Fine-tune")
    dock.start_from.choose(starting_weights()["em-nano"])
    dock.annotate(image)
    labels = viewer.layers.selection.active
    classes = [
        LabelClass(value=value, name=name, color=color)
        for value, (name, color) in enumerate(PAINTED.items(), 1)
    ]
    dock.classes.set_classes(classes, ignore_value=0)
    for value, kind in enumerate((0, 1, 2), 1):
        stroke(labels, truth.data[PLANE] == kind, value)
    dock.classes.choose(1)
    dock.quick.predict_button.setChecked(True)
    wait(lambda: any("prediction" in layer.name for layer in viewer.layers))
    wait(lambda: not dock.quick.is_busy)
    wait(lambda: "%" in dock.quick.quality.text.text())
    shoot(viewer, "finetune")
    dock.quick.save_button.click()
    wait(lambda: any((preferences.load_preferences().runs).glob("*quick*")))
    dock.quick.predict_button.setChecked(False)
    # The classes of the truth are others than those that were painted: the next dock would warn.
    for layer in list(viewer.layers):
        if layer is not image:
            viewer.layers.remove(layer)
    viewer.window.remove_dock_widget(holder)


def stroke(labels: Any, where: np.ndarray, value: int) -> None:
    """Paint a few strokes inside a region: along membranes, across all else."""
    rng = np.random.default_rng(value)
    thin = value == 2
    labels.brush_size = 2 if thin else 5
    inner = ndimage.binary_erosion(where, iterations=1 if thin else 4)
    # Membranes that are cut across, not along.
    if thin:
        inner &= ~ndimage.binary_opening(where, iterations=4)
    parts, _ = ndimage.label(inner)
    places = np.argwhere(inner)
    for start in places[rng.integers(0, len(places), 12 if thin else 7)]:
        near = places[np.abs(places - start).max(axis=1) < (9 if thin else 14)]
        near = near[parts[tuple(near.T)] == parts[tuple(start)]]
        for row, column in near if thin else near[near[:, 0] == start[0]]:
            labels.paint((PLANE, int(row), int(column)), value)


def segment(viewer: napari.Viewer, image: Any, shoot: Shoot) -> None:
    """Segment a plane, and number and correct its mitochondria."""
    holder, dock = open_dock(viewer, "3. Segment")
    dock.run_choice.refresh()
    wait(lambda: not dock.run_choice.is_listing)
    dock.run_choice.combo.setCurrentIndex(1)
    dock.image.choose_layer(image)
    dock.region.setCurrentText("this plane")
    dock.panel.start_button.click()
    wait(lambda: not dock.panel.is_running)
    shoot(viewer, "segment")
    for row in range(dock.objects.classes.count()):
        item = dock.objects.classes.item(row)
        wanted = item.text().endswith(MITOCHONDRION)
        item.setCheckState(Qt.CheckState.Checked if wanted else Qt.CheckState.Unchecked)
    dock.objects.now_button.click()
    wait(lambda: not dock.panel.is_running)
    objects = viewer.layers[-1]
    objects.selected_label = int(np.argmax(objects.features["size_px"]))
    dock.findChild(CorrectionBar).accept_button.click()
    viewer.layers.selection.active = objects
    shoot(viewer, "objects")
    viewer.window.remove_dock_widget(holder)


if __name__ == "__main__":
    main()
