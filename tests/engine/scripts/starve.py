"""Pretrain with less memory than the batch needs.

Variables: RUN (folder), RELIEF (whether memory is there again after the first
failure), RESULT (file for the micro-batches that were tried, or the error's words).
"""

import ctypes
import json
import resource
from pathlib import Path

import torch

from napari_affmae.config import PretrainConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import pretrain
from napari_affmae.engine.events import MicroBatchHalved, RunStarted, StepDone
from napari_affmae.errors import OutOfMemoryError

RUN: str = globals()["RUN"]
RELIEF: bool = globals()["RELIEF"]
RESULT: str = globals()["RESULT"]

torch.set_num_threads(1)
# Freed blocks go back to the system at once (M_MMAP_THRESHOLD): kept ones would feed the batch.
ctypes.CDLL(None).mallopt(-3, 2**15)
image = open_source(synthetic_em((2, 256, 256), seed=0)[0], axes="ZYX", name="volume")
config = PretrainConfig(crop=256, batch=4, steps=2, device="cpu", validation=0)
# oneDNN makes code for each size of batch once. Where no memory is left for code, the thread
# cannot make any again (its code generator keeps the error): only tensors are to be starved.
for size in (4, 2, 1):
    warm_up = config.model_copy(update={"batch": size, "steps": 1})
    list(pretrain([image], warm_up, Path(f"{RUN}_{size}")))
told = []
events = pretrain([image], config, Path(RUN))
try:
    for event in events:
        if isinstance(event, RunStarted):
            told.append(event.micro_batch)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            limit = pages * resource.getpagesize() + 4 * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        if isinstance(event, MicroBatchHalved):
            told.append(event.micro_batch)
            if RELIEF:
                resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        if isinstance(event, StepDone):
            break
except OutOfMemoryError as error:
    told.append(str(error))
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
events.close()
Path(RESULT).write_text(json.dumps(told))
