"""Pretrain until the first checkpoint, then let files grow no further.

Variables: RUN (folder), LIMIT (bytes of a file), RESULT (file for the error's words).
"""

import json
import resource
from pathlib import Path

import torch

from napari_affmae.config import PretrainConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import pretrain
from napari_affmae.engine.events import CheckpointSaved
from napari_affmae.errors import DiskFullError

RUN: str = globals()["RUN"]
LIMIT: int = globals()["LIMIT"]
RESULT: str = globals()["RESULT"]

torch.set_num_threads(1)
image = open_source(synthetic_em((6, 80, 96), seed=0)[0], axes="ZYX", name="volume")
config = PretrainConfig(crop=64, batch=2, steps=4, device="cpu", checkpoint_minutes=1e-9)
try:
    for event in pretrain([image], config, Path(RUN)):
        if isinstance(event, CheckpointSaved):
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
except DiskFullError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    Path(RESULT).write_text(json.dumps(str(error)))
