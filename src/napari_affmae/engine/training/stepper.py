"""One optimiser step: micro-batches, mixed precision, memory that runs out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_affmae.engine.compute.device import Shortage
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.compute.seeds import Stream, seeded
from napari_affmae.engine.training.batch import BatchPlan
from napari_affmae.engine.training.optimiser import make_optimiser, set_learning_rate
from napari_affmae.engine.training.passes import make_passes
from napari_affmae.engine.training.task import Task
from napari_affmae.errors import DivergedError

# The loss scaler starts at 65,536 and halves itself at each skipped step, so after 17
# of them in a row it no longer scales anything up.
_MOST_SKIPPED = 25
# AdamW keeps two numbers for each weight, and takes one more for a moment.
_OPTIMISER_PARTS = 3


@dataclass(frozen=True)
class Measured:
    """What a step found out.

    Attributes
    ----------
    loss : float
        Mean over the crops.
    losses : Mapping[str, float]
        Its parts.
    gradient_norm : float or None
        Before clipping; None where the loss scaler skipped the step.
    """

    loss: float
    losses: Mapping[str, float]
    gradient_norm: float | None


class Stepper:
    """The network on its device, with its optimiser.

    Attributes
    ----------
    batch : BatchPlan
        The micro-batch shrinks when memory runs out.
    runtime : Runtime
        Device and precision.
    optimiser : torch.optim.AdamW
        Of the task's network.
    updating : bool
        Whether the weights are being changed: an interrupt has left them
        between two steps.

    Parameters
    ----------
    task : Task
        Network and loss.
    runtime : Runtime
        Where to compute.
    batch : BatchPlan
        Crops of a step.
    capture : bool
        Whether to record passes where that is possible.
    """

    def __init__(
        self, task: Task, runtime: Runtime, batch: BatchPlan, *, capture: bool = True
    ) -> None:
        self.batch = batch
        self.runtime = runtime
        self.updating = False
        self._task = task
        with runtime.plan.active():
            self._module = runtime.fabric.to_device(task.module).train()
        config = task.config
        self.optimiser = make_optimiser(
            self._module, config.betas, config.weight_decay, task.rate_scale
        )
        # Only steps are made through this one: it applies the loss scaler.
        self._scaled = runtime.fabric.setup_optimizers(self.optimiser)
        self._skipped = 0
        self._passes = make_passes(task, runtime, capture=capture)

    def make(self, batch: tuple[Tensor, ...], step: int, rate: float) -> Measured | None:
        """Make one step, or halve the micro-batch.

        Parameters
        ----------
        batch : tuple of Tensor
            What `Task.loss` takes, on the CPU.
        step : int
            Number of the step.
        rate : float
            Learning rate.

        Returns
        -------
        Measured or None
            None where memory ran out: nothing has changed but `self.batch`, and
            the same step can be tried again.

        Raises
        ------
        DivergedError
            The loss or gradient is not finite; the weights are those of the
            step before.
        OutOfMemoryError
            Not even one crop fits.
        """
        self._passes.clear()
        plan = self.runtime.plan
        with Shortage() as shortage, plan.active():
            with seeded(self._task.config.seed, Stream.DROPOUT, step, plan.device):
                loss, losses = self._accumulate(batch)
            return self._update(loss, losses, step, rate)
        self._passes.release()
        plan.release_memory()
        if self.batch.micro_batch == 1 or self.updating:
            where = "in the optimiser" if self.updating else "with a single crop"
            raise shortage.error(
                plan, f"step {step} failed {where}: it does not fit", "Use a smaller crop or preset"
            )
        self.batch = self.batch.halved()
        return None

    def check_weights(self, step: int) -> None:
        """Refuse weights that are not worth a checkpoint.

        Parameters
        ----------
        step : int
            Number of the step that made them.

        Raises
        ------
        DivergedError
            If one is not finite.
        """
        finite = [parameter.isfinite().all() for parameter in self._module.parameters()]
        if not torch.stack(finite).all():
            raise self._diverged(step, "weights are not finite")

    def release(self) -> bool:
        """Hand back the memory of recorded passes, which are recorded anew when needed.

        Returns
        -------
        bool
            Whether there were any.
        """
        had_some = self._passes.release()
        if had_some:
            self.runtime.plan.release_memory()
        return had_some

    def _accumulate(self, batch: tuple[Tensor, ...]) -> tuple[float, Mapping[str, float]]:
        """Add up the gradients of the micro-batches, so that they are those of the batch."""
        crops = len(batch[0])
        reserved = self._reserve()
        parts = zip(*(tensor.split(self.batch.micro_batch) for tensor in batch), strict=True)
        values = [self._passes(part, len(part[0]) / crops) for part in parts]
        del reserved
        # One transfer for all numbers: each would make the host wait for the device.
        return self._passes.named(torch.stack(values).sum(0).tolist())

    def _reserve(self) -> Tensor | None:
        """Hold the memory of the optimiser's first step, which recorded passes must leave free."""
        device = self.runtime.plan.device
        if device.type != "cuda" or self.optimiser.state:
            return None
        size = sum(p.numel() * p.element_size() for p in self._module.parameters())
        return torch.empty(_OPTIMISER_PARTS * size, dtype=torch.uint8, device=device)

    def _update(self, loss: float, losses: Mapping[str, float], step: int, rate: float) -> Measured:
        if not math.isfinite(loss):
            raise self._diverged(step, f"the loss is {loss}")
        norm = self.runtime.fabric.clip_gradients(
            self._module,
            self.optimiser,
            max_norm=self._task.config.clip,
            error_if_nonfinite=False,
        )
        gradient_norm: float | None = float(norm)  # type: ignore[arg-type]
        if math.isfinite(gradient_norm):  # type: ignore[arg-type]
            self._skipped = 0
        else:
            self._skipped += 1
            if not self.runtime.scaler or self._skipped > _MOST_SKIPPED:
                raise self._diverged(step, f"the norm of the gradient is {gradient_norm}")
            gradient_norm = None
        set_learning_rate(self.optimiser, rate)
        self.updating = True
        self._scaled.step()  # type: ignore[union-attr]
        self.updating = False
        return Measured(loss, losses, gradient_norm)

    def _diverged(self, step: int, what: str) -> DivergedError:
        config = self._task.config
        advice = f"start again with a learning rate below {config.learning_rate:g}"
        if self.runtime.plan.precision != "fp32":
            advice += ", or resume with precision fp32"
        return DivergedError(
            f"training diverged in step {step}: {what}. Checkpoints up to the last one are "
            f"intact; {advice}"
        )
