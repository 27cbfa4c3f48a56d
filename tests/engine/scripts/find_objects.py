"""Finds objects in a volume; the process kills itself after so many events and a delay.

Variables: `labels` (path), `target`, `events` (None never kills) and `seconds`.
"""

import os
import signal
import threading
from pathlib import Path

from napari_affmae.config import ObjectsConfig
from napari_affmae.data import open_source
from napari_affmae.engine import objects_to_file
from napari_affmae.engine.results.plan import BlockSizes

variables = globals()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


found = objects_to_file(
    open_source(variables["labels"], labels=True),
    (1, 2),
    ObjectsConfig(three_d=True, min_size=20),
    Path(variables["target"]),
    sizes=BlockSizes(chunk=8, side=24, depth=7),
)
for number, _ in enumerate(found):
    if number == variables["events"]:
        timer = threading.Timer(variables["seconds"], kill)
        timer.daemon = True
        timer.start()
