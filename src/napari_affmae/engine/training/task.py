"""What a training run learns: the part in which pretraining and fine-tuning differ."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_affmae.config import TrainingConfig
from napari_affmae.data import LabelledCrops, PretrainCrops
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.events import Event, Validated
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.run_folder import Kind


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
    crops : PretrainCrops or LabelledCrops
        Training crops, numbered without end.
    validation_steps : int
        Steps between validations.
    preview_steps : int
        Steps between previews.
    """

    kind: Kind
    module: nn.Module
    config: TrainingConfig
    crops: PretrainCrops | LabelledCrops
    validation_steps: int
    preview_steps: int

    def rate_scale(self, name: str) -> float:  # noqa: ARG002 - the default is for any name
        """Return the factor of the learning rate of a parameter."""
        return 1.0

    @abstractmethod
    def follow(self) -> Generator[Event, None, None]:
        """Take in what has changed in the data since the last step, and tell of it."""

    @abstractmethod
    def prepare(self, batch: tuple[Tensor, ...], step: int) -> tuple[Tensor, ...]:
        """Complete a batch from the loader.

        Parameters
        ----------
        batch : tuple of Tensor
            On the CPU, each of length B.
        step : int
            Number of the step, for what is drawn at random.

        Returns
        -------
        tuple of Tensor
            What `loss` takes, each of length B; cut into parts where the batch
            does not fit the memory at once.
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
            From `prepare`, or some crops of it, and from `common`; on the device.

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

    def score(self, validated: Validated) -> float | None:  # noqa: ARG002 - the default has none
        """Return what makes a checkpoint the best, the larger the better; None: no best."""
        return None


def to_tensors(batch: "Tensor | tuple[Tensor, ...]") -> tuple[Tensor, ...]:
    """Make the loader's batch a tuple, whatever the crops consist of."""
    return batch if isinstance(batch, tuple) else (batch,)


def validation_crops(batch: int) -> int:
    """Return how many crops a validation loss is averaged over.

    Two batches, which take less time than one training step, but 8 to 32 crops.

    Parameters
    ----------
    batch : int
        Crops of a step.
    """
    return min(max(8, 2 * batch), 32)


def mean_loss(task: Task, runtime: Runtime, batch: tuple[Tensor, ...]) -> float:
    """Average the loss over crops, in evaluation mode.

    They are computed one by one: what trains with one crop at a time has the
    memory for that.

    Parameters
    ----------
    task : Task
        Network and loss.
    runtime : Runtime
        Device and precision.
    batch : tuple of Tensor
        What `Task.loss` takes, on the CPU.

    Returns
    -------
    float
        The mean.
    """
    losses = []
    with evaluating(task.module), runtime.computing():
        for crop in zip(*(tensor.split(1) for tensor in batch), strict=True):
            loss, _ = task.loss(task.module, *runtime.to_device((*crop, *task.common())))
            losses.append(float(loss))
    return sum(losses) / len(losses)
