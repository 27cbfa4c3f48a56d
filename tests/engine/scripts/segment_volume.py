"""Segments a volume; a timer kills the process at some moment after some tiles.

Variables: `image` (path), `model`, `target`, `probabilities`, `tiles` (how many come before the
timer starts; None never kills) and `seconds` (of the timer).
"""

import os
import signal
import threading
from pathlib import Path

import torch

from napari_affmae.config import SegmentConfig
from napari_affmae.data import open_source
from napari_affmae.engine.events import TilesDone
from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.engine.volumes.segmenting import VolumeSegmenter

torch.set_num_threads(1)
variables = globals()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


config = SegmentConfig(device="cpu", probabilities=variables["probabilities"])
volumes = VolumeSegmenter(
    Origins(Path(variables["model"]), config), config, sizes=BlockSizes(chunk=16, side=64)
)
for event in volumes.segment(open_source(variables["image"]), Path(variables["target"])):
    if isinstance(event, TilesDone) and event.done == variables["tiles"]:
        timer = threading.Timer(variables["seconds"], kill)
        timer.daemon = True
        timer.start()
