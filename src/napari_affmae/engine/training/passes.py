"""Forward and backward pass of a micro-batch: as it comes, or recorded and replayed.

On a GPU a pass is thousands of small kernels, and launching them takes longer
than computing. So there the first pass of each shape is recorded as a CUDA graph.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.training.task import Task
from napari_affmae.model.capture import CapturedStep, CaptureError, GraphMemory

logger = logging.getLogger(__name__)

# A run has one shape, or two where the last part of its batches is smaller.
_MOST_SHAPES = 4


class Passes:
    """Passes that are computed as they come.

    The gradients of the passes of one step add up.

    Parameters
    ----------
    task : Task
        Network and loss; the network is on the device.
    runtime : Runtime
        Device and precision.
    """

    def __init__(self, task: Task, runtime: Runtime) -> None:
        self._task = task
        self._runtime = runtime
        self._network = runtime.network(task.module)
        self._parameters = [p for p in task.module.parameters() if p.requires_grad]
        self._names: tuple[str, ...] = ()

    def clear(self) -> None:
        """Forget the gradients, before a step."""
        for parameter in self._parameters:
            parameter.grad = None

    def __call__(self, part: tuple[Tensor, ...], share: float) -> Tensor:
        """Add the gradients of a micro-batch.

        Parameters
        ----------
        part : tuple of Tensor
            Some crops of what `Task.prepare` returned, on the CPU.
        share : float
            Of these crops in the batch.

        Returns
        -------
        Tensor
            (1 + parts of the loss,) on the device, the loss and its parts times
            the share, to be added up over the micro-batches; see `named`.
        """
        return self._compute(share, *self._runtime.to_device((*part, *self._task.common())))

    def named(self, values: Sequence[float]) -> tuple[float, Mapping[str, float]]:
        """Tell the loss from its parts, once a pass was made."""
        loss, *parts = values
        return loss, dict(zip(self._names, parts, strict=True))

    def release(self) -> bool:
        """Give up all that is kept for later passes, gradients included.

        Returns
        -------
        bool
            Whether there were recorded passes.
        """
        self.clear()
        return False

    def _compute(self, share: float | Tensor, *batch: Tensor) -> Tensor:
        # A recorded pass must not use what autocast has kept from before.
        with self._runtime.computing(keep_casts=False):
            loss, losses = self._task.loss(self._network, *batch)
        self._runtime.fabric.backward(loss * share)
        self._names = tuple(losses)
        return torch.stack([value.detach() for value in (loss, *losses.values())]) * share


class CapturedPasses(Passes):
    """Passes that are recorded when a shape first comes, and replayed from then on.

    A task whose passes cannot be recorded is computed as it comes; the log says why.

    Parameters
    ----------
    task, runtime
        See `Passes`; the device is a GPU of CUDA.
    """

    def __init__(self, task: Task, runtime: Runtime) -> None:
        super().__init__(task, runtime)
        self._recorded: dict[Any, CapturedStep[Tensor]] = {}
        self._memory: GraphMemory | None = None
        self._can_record = True

    def clear(self) -> None:
        """Forget the gradients, before a step."""
        super().clear()
        for step in self._recorded.values():
            if step.accumulates:
                step.clear()
                break  # the others add to the same ones

    def __call__(self, part: tuple[Tensor, ...], share: float) -> Tensor:
        """Add the gradients of a micro-batch; see `Passes`."""
        inputs = (torch.tensor(share), *part, *self._task.common())
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if shapes not in self._recorded and not self._record(shapes, inputs, share):
            return super().__call__(part, share)
        # The next replay will overwrite what this one returns.
        return self._recorded[shapes](*inputs).clone()

    def release(self) -> bool:
        """Give up all that is kept for later passes; see `Passes`."""
        had_some = bool(self._recorded)
        self._recorded.clear()
        self._memory = None
        super().release()
        return had_some

    def _record(self, shapes: Any, inputs: tuple[Tensor, ...], share: float) -> bool:
        """Record a pass, whose gradients stay as they are; tell whether that worked."""
        if not self._can_record or len(self._recorded) == _MOST_SHAPES:
            return False
        if self._memory is None:
            self._memory = GraphMemory(self._runtime.plan.device)
        try:
            self._recorded[shapes] = CapturedStep(
                self._compute,
                self._runtime.to_device(inputs),
                self._parameters,
                # What is the whole batch need not read and write the gradients twice.
                accumulate=share < 1,
                memory=self._memory,
            )
        except CaptureError as error:
            # Not the error itself, which whoever keeps the message would keep, with its tensors.
            reason = str(error)
            logger.warning("training steps are not recorded as CUDA graphs, so slower: %s", reason)
            self._can_record = False
            self._recorded.clear()
            return False
        return True


def make_passes(task: Task, runtime: Runtime, *, capture: bool = True) -> Passes:
    """Choose how passes are made.

    Parameters
    ----------
    task, runtime
        See `Passes`.
    capture : bool
        Whether to record them where that is possible.
    """
    captured = capture and runtime.plan.device.type == "cuda"
    return CapturedPasses(task, runtime) if captured else Passes(task, runtime)
