"""What a training run learns: the part in which pretraining and fine-tuning differ."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from affmae_kernels import CropPlan
from napari_affmae.config import TrainingConfig
from napari_affmae.data import LabelledCrops, PretrainCrops
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.events import Event, Validated
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.run_folder import Kind
from napari_affmae.engine.training.steps.batch import BatchPlan

_PREVIEW_SIDE = 512


class Task(ABC):
    """A network with its data, its loss, and its measures.

    Attributes
    ----------
    kind : {"pretrain", "finetune"}
        What the run does.
    module : nn.Module
        The network.
    config : TrainingConfig
        Settings of the run.
    batch : BatchPlan
        Crops of a step.
    crops : PretrainCrops or LabelledCrops
        Training crops, numbered without end.
    measures_start : bool
        Whether a validation before the first step tells what the run starts from.
    """

    kind: Kind
    measures_start: bool = False
    module: nn.Module
    config: TrainingConfig
    batch: BatchPlan
    crops: PretrainCrops | LabelledCrops

    def rate_scale(self, name: str) -> float:  # noqa: ARG002 - the default is for any name
        """Return the factor of the learning rate of a parameter."""
        return 1.0

    @abstractmethod
    def close(self) -> None:
        """End the threads that read images."""

    @abstractmethod
    def follow(self) -> Generator[Event, None, None]:
        """Take in what has changed in the data since the last step, and tell of it."""

    @abstractmethod
    def cut(self, plan: CropPlan) -> tuple[Tensor, ...]:
        """Make what `loss` takes of planned crops.

        Parameters
        ----------
        plan : CropPlan
            From `crops`, or a part of it; on the device.

        Returns
        -------
        tuple of Tensor
            Each of length B, on the device. Nothing may wait for the device, and
            what is drawn at random follows from the plan's keys.
        """

    def common(self) -> tuple[Tensor, ...]:
        """Return what `loss` takes beside the batch: the same for all crops of a step.

        It may have other values, not other shapes, in each step. Whatever
        changes must come this way or in the batch: passes may be recorded.
        """
        return ()

    @abstractmethod
    def loss(
        self, network: Callable[..., Any], *batch: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compute the loss.

        Parameters
        ----------
        network : Callable
            Calls `module`.
        batch : Tensor
            From `cut`, and from `common`; on the device.

        Returns
        -------
        tuple
            A mean over crops, and its parts; scalars of float32.
        """

    @abstractmethod
    def validate(self, runtime: Runtime, step: int) -> Generator[Event, None, Validated | None]:
        """Measure the network in evaluation mode; None where there is nothing to measure on."""

    @abstractmethod
    def preview(self, runtime: Runtime) -> Mapping[str, NDArray[np.float32]] | None:
        """Make the pictures of a `PreviewReady` event, or None."""

    @abstractmethod
    def metadata(self, step: int, validated: Validated | None) -> ModelMetadata:
        """Describe the network as it is now, for its model file."""

    def judge_length(self, crops: int, seconds_per_crop: float) -> str | None:  # noqa: ARG002
        """Return what to say of a run that sees too few crops to be worth it; None: nothing."""
        return None

    def recall(self, measured: Sequence[Mapping[str, Any]]) -> None:  # noqa: B027 - most have no memory
        """Take in the lines of `metrics.jsonl` that a resumed run goes on after."""

    def conclude(self) -> str | None:
        """Return what to say of the run's validations when it ends; None: nothing."""
        return None

    def score(self, validated: Validated) -> float | None:  # noqa: ARG002 - the default has none
        """Return what makes a checkpoint the best, the larger the better; None: no best."""
        return None


def middle(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut what a preview shows out of (count, height, width): at most 512 pixels a side.

    Writing a picture of whole large crops takes seconds.
    """
    height, width = images.shape[-2:]
    top, left = (max(0, size - _PREVIEW_SIDE) // 2 for size in (height, width))
    return images[:, top : top + _PREVIEW_SIDE, left : left + _PREVIEW_SIDE]


def validation_crops(batch: int) -> int:
    """Return how many crops a validation loss is averaged over.

    Two batches, which take less time than one training step, but 8 to 32 crops.

    Parameters
    ----------
    batch : int
        Crops of a step.
    """
    return min(max(8, 2 * batch), 32)


def mean_loss(task: Task, runtime: Runtime, batch: tuple[Tensor, ...], at_once: int) -> float:
    """Average the loss over crops, in evaluation mode.

    Parameters
    ----------
    task : Task
        Network and loss.
    runtime : Runtime
        Device and precision.
    batch : tuple of Tensor
        What `Task.loss` takes, on the device.
    at_once : int
        How many crops are computed at once: as many as a training step does, which
        takes more memory.

    Returns
    -------
    float
        The mean.
    """
    total = torch.zeros((), device=batch[0].device)
    with evaluating(task.module), runtime.computing():
        for part in zip(*(tensor.split(at_once) for tensor in batch), strict=True):
            loss, _ = task.loss(task.module, *part, *runtime.to_device(task.common()))
            total += loss * len(part[0])
    return total.item() / len(batch[0])
