"""Train on synthetic images as one of several processes, and write down what came of it.

Variables: RANK, SIZE and PORT of the process; KIND, START (model file), CONFIG (settings that
differ), RUN (folder) and RESUME of the run; OUT (file for the events and the end); and what goes
wrong here: STOP_AFTER (steps until the run is closed), KILL_AFTER (steps until the process kills
itself), MOST_CROPS (that fit into memory at once), all of them or None, and DAMAGED (whether the
labels do not fit the images).
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from napari_affmae.config import AugmentationConfig, FinetuneConfig, PretrainConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import finetune, pretrain
from napari_affmae.engine.compute.distributed import joined
from napari_affmae.engine.events import HelperStep, StepDone
from napari_affmae.model import AFFMAE

VARIABLES: dict[str, Any] = globals()
RANK: int = VARIABLES["RANK"]
KIND: str = VARIABLES["KIND"]
RUN, START, OUT = (Path(VARIABLES[name]) for name in ("RUN", "START", "OUT"))

torch.set_num_threads(1)
os.environ |= {"RANK": str(RANK), "WORLD_SIZE": str(VARIABLES["SIZE"])}
os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(VARIABLES["PORT"])}

planes, classes = synthetic_em((6, 80, 96), seed=0)
image = open_source(planes, axes="ZYX", name="volume")
labels = open_source(classes, axes="ZYX", name="labels")
if VARIABLES["DAMAGED"]:
    labels = open_source(classes[:, 1:], axes="ZYX", name="labels")

# Crops that are bent show what lies beyond an image, which has no labels; then the mean over the
# labelled pixels of a batch is not that of its parts.
settings = {
    "crop": 64,
    "batch": 4,
    "steps": 5,
    "validation_steps": 3,
    "device": "cpu",
    "memory_share": 1e-6,  # so little that images come and go
    "augmentation": AugmentationConfig(affine=0, elastic=0),
    **VARIABLES["CONFIG"],
}


def starve(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Lack memory for more crops."""
    if isinstance(module, AFFMAE) and module.training and len(inputs[0]) > VARIABLES["MOST_CROPS"]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


if VARIABLES["MOST_CROPS"] is not None:
    register_module_forward_pre_hook(starve)

told: list[tuple[str, int | None, float | None]] = []
ending = "end"
try:
    with joined() as team:
        common: dict[str, Any] = {"resume": VARIABLES["RESUME"], "team": team}
        if KIND == "pretrain":
            events = pretrain([image], PretrainConfig(**settings), RUN, start=START, **common)
        else:
            pairs = [(image, labels)]
            events = finetune(pairs, FinetuneConfig(**settings), RUN, pretrained=START, **common)
        for event in events:
            step = getattr(event, "step", None)
            told.append((type(event).__name__, step, getattr(event, "loss", None)))
            if isinstance(event, StepDone | HelperStep):
                if step == VARIABLES["STOP_AFTER"]:
                    events.close()
                if step == VARIABLES["KILL_AFTER"]:
                    os.kill(os.getpid(), signal.SIGKILL)
except Exception as error:  # noqa: BLE001 - which one it is is what the test looks at
    ending = f"{type(error).__name__}: {error}"
OUT.write_text(json.dumps({"events": told, "ending": ending}))
