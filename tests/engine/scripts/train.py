"""Pretrain on synthetic images, in a process that may be killed.

Variables: RUN (folder), STEPS, RESUME, STOP_AFTER (steps until it is closed, or
None), KILL_AT_SYNC (number of the fsync at which the process kills itself, or None).
"""

import itertools
import os
import signal
from pathlib import Path

import torch

from napari_affmae.config import PretrainConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import pretrain
from napari_affmae.engine.events import StepDone

RUN: str = globals()["RUN"]
STEPS: int = globals()["STEPS"]
RESUME: bool = globals()["RESUME"]
STOP_AFTER: int | None = globals()["STOP_AFTER"]
KILL_AT_SYNC: int | None = globals()["KILL_AT_SYNC"]

torch.set_num_threads(1)
syncs = itertools.count(1)
fsync = os.fsync


def deadly_fsync(descriptor: int) -> None:
    if next(syncs) == KILL_AT_SYNC:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)


os.fsync = deadly_fsync
image = open_source(synthetic_em((6, 80, 96), seed=0)[0], axes="ZYX", name="volume")
config = PretrainConfig(
    crop=64,
    batch=2,
    steps=STEPS,
    validation_steps=5,
    device="cpu",
    checkpoint_minutes=1e-9,
    memory_share=1e-6,
)
events = pretrain([image], config, Path(RUN), resume=RESUME)
for event in events:
    if isinstance(event, StepDone) and event.step == STOP_AFTER:
        events.close()
