"""What a run tells whoever drives it.

A run is a generator of these events (`engine.pretrain`, `engine.finetune`,
`engine.segment`); at least one comes per step, so closing the generator stops
the run within a step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True)
class FilesLookedAt(Event):
    """Files are being opened, before anything else: so many so far."""

    count: int


@dataclass(frozen=True)
class RunStarted(Event):
    """The device, precision, backend and sizes that the run settled on.

    `device` and `backend` are words for the user, for instance
    ``"NVIDIA H100, 80 GB"`` and ``"Triton kernels"``; `on_gpu` is whether that
    device is another than the CPU; `step` is 0, or where a resumed run goes on.
    """

    device: str
    on_gpu: bool
    precision: str
    backend: str
    parameters: int
    batch: int
    micro_batch: int
    step: int
    total_steps: int | None


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know: a check's finding, a skipped file."""

    message: str
    level: str = "warning"
    source: str | None = None


@dataclass(frozen=True)
class StepDone(Event):
    """One optimiser step.

    `total_steps` and `seconds_left` are estimates in a run by minutes, and
    None until the first steps were timed. `seconds_waited` is how long the step
    waited for images to be read. On a fast GPU events of several steps come
    together, some tens of times a second.
    """

    step: int
    total_steps: int | None
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float | None
    losses: Mapping[str, float] = field(default_factory=dict)
    gradient_norm: float | None = None
    seconds_waited: float = 0.0


@dataclass(frozen=True)
class HelperStep(Event):
    """So many steps were made, in a process that helps another one, which tells the rest."""

    step: int


@dataclass(frozen=True)
class PoolFilled(Event):
    """Images were decoded into the pool that crops are cut from.

    Comes while a run waits for images, and now and then later. `held`,
    `capacity` and `total` are bytes: of what is there, of the pool, and of all
    images. `read` counts the bytes decoded so far, `seconds_waited` how long
    steps have waited for them.
    """

    step: int
    held: int
    capacity: int
    total: int
    read: int
    seconds_waited: float


@dataclass(frozen=True)
class MicroBatchHalved(Event):
    """The device ran out of memory; the batch goes on in smaller parts."""

    step: int
    micro_batch: int
    accumulate: int


@dataclass(frozen=True)
class Validated(Event):
    """A validation pass.

    In fine-tuning with the metrics over the set; `best` says whether this became
    the run's best checkpoint. In pretraining with the effective rank of the
    features of each encoder stage, and with the score of the `Probe` where there
    are labels; there the first one, of step 0, is of what the run starts from.
    """

    step: int
    loss: float
    iou: Mapping[str, float] = field(default_factory=dict)
    dice: Mapping[str, float] = field(default_factory=dict)
    mean_iou: float | None = None
    mean_dice: float | None = None
    best: bool = False
    ranks: Sequence[float] = ()
    probe: float | None = None


@dataclass(frozen=True)
class PreviewReady(Event):
    """Pictures of the same few crops, to look at.

    `images` are named float32 arrays (count, height, width), for pretraining
    ``input``, ``masked``, ``reconstruction``, ``error``; for fine-tuning
    ``input``, ``label``, ``prediction``.
    """

    step: int
    images: Mapping[str, NDArray[np.float32]]
    path: Path | None = None


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A checkpoint is complete on disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class TileDone(Event):
    """One batch of tiles of a plane was predicted, in segmentation or in a validation."""

    done: int
    total: int
    plane: int
    seconds_left: float | None


@dataclass(frozen=True)
class BandDone(Event):
    """Rows of a plane are segmented; the tiles to come do not change them.

    `labels` (rows, width) holds class values, `probabilities`
    (classes, rows, width) float32 or None. Bands come from the first row of a
    plane to the last, without gaps.
    """

    plane: int
    planes: int
    rows: slice
    labels: NDArray[np.uint8] | NDArray[np.uint16]
    probabilities: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class PlaneDone(Event):
    """A plane is segmented.

    `labels` (height, width) holds class values. Probabilities, which may take more
    memory than there is, come by bands alone.
    """

    plane: int
    planes: int
    labels: NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class ResultBegun(Event):
    """A volume of results can be read, of which nothing or a part is complete.

    `labels` and `probabilities` are OME-Zarr folders; the latter is None if there are none.
    """

    labels: Path
    probabilities: Path | None


@dataclass(frozen=True)
class TilesDone(Event):
    """A tile of a volume was predicted, by any of the workers.

    `done` and `total` count the tiles that were missing at the start of this run;
    those at the borders of blocks are computed and counted for each of them.
    """

    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class BlockDone(Event):
    """A block of a volume is complete on the disk, and will not be computed again.

    `level` is that of the pyramid, 0 for the full resolution, and `box` is the part
    of that level's array. `done` counts the complete blocks of all levels.
    """

    level: int
    box: tuple[slice, ...]
    done: int
    total: int


@dataclass(frozen=True)
class ObjectsProgress(Event):
    """How far the search for objects in a volume is.

    `doing` is ``"finding"``, ``"joining"`` or ``"numbering"``; `done` counts the blocks of
    the first and the last of these together.
    """

    doing: str
    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class ObjectsWritten(Event):
    """The objects of a volume are numbered in a file and measured in a table, both complete."""

    path: Path
    table: Path
    count: int


@dataclass(frozen=True)
class PlanProgress(Event):
    """One of the steps that a plan is measured on was made."""

    done: int
    total: int


@dataclass(frozen=True)
class PlanMeasured(Event):
    """What a run will take, measured on a few of its steps.

    `device` and `backend` are words for the user. `memory` is the most that a
    step took, in bytes: of the GPU's own memory, else what the process grew by,
    network and optimiser included; `memory_available` is the GPU's memory, or
    what the computer had free before. Either is None where it cannot be
    measured. `total_steps` and `total_seconds` cover the steps alone, not
    validation and checkpoints. `advice` is what to say of a run that would see
    too few crops to be worth it, else None.
    """

    device: str
    precision: str
    backend: str
    parameters: int
    batch: int
    micro_batch: int
    seconds_per_step: float
    memory: int | None
    memory_available: int | None
    total_seconds: float | None
    total_steps: int | None
    advice: str | None = None


@dataclass(frozen=True)
class ExportStep(Event):
    """What an export does now, for the user to read; `done` of its `total` steps are done."""

    doing: str
    done: int
    total: int


@dataclass(frozen=True)
class ViewPredicted(Event):
    """What a quickly trained network says of the part of a plane that is shown.

    `labels` (height, width) holds class values, `probabilities`
    (classes, height, width) float32, `uncertainty` (height, width) float32 from
    0, sure, to 1 (see `engine.uncertainty`).
    """

    labels: NDArray[np.uint8] | NDArray[np.uint16]
    probabilities: NDArray[np.float32]
    uncertainty: NDArray[np.float32]


@dataclass(frozen=True)
class HeldOut(Event):
    """How well strokes are recognised that were held out.

    Attributes
    ----------
    score : float or None
        Part of the painted pixels that are given their class, from 0 to 1: the mean over
        the pixels of a stroke, over the strokes of a class, over classes. None where fewer
        than two classes have two strokes.
    low, high : float
        A range that holds the score of very many such strokes nine times in ten.
    strokes, planes : int
        Number of strokes that were asked for, and of planes that they lie on.
    by_class : Mapping[str, float]
        The score of each class that was judged.
    alone : tuple of str
        Painted classes that have one stroke, and so were not judged.
    """

    score: float | None
    low: float = 0.0
    high: float = 1.0
    strokes: int = 0
    planes: int = 0
    by_class: Mapping[str, float] = field(default_factory=dict)
    alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFinished(Event):
    """The run reached its end; `path` is what it made."""

    step: int
    path: Path


@dataclass(frozen=True)
class Exported(Event):
    """An export is complete; `path` is its file."""

    path: Path
