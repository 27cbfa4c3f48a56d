"""One optimiser step: as it comes, or recorded once and replayed."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import NamedTuple

import torch
from torch import Tensor

from affmae_kernels import CropPlan, drawing_from
from napari_affmae.engine.compute.device import Shortage
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.compute.seeds import Stream, derived_seed
from napari_affmae.engine.training.steps.batch import BatchPlan
from napari_affmae.engine.training.steps.task import Task
from napari_affmae.engine.training.steps.updater import Updater
from napari_affmae.errors import DivergedError
from napari_affmae.model.capture import Captured, CapturedStep, CaptureError, GraphMemory

logger = logging.getLogger(__name__)

# The loss scaler starts at 65,536 and halves itself at each skipped step, so after 17
# of them in a row it no longer scales anything up.
_MOST_SKIPPED = 25


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


class Launched:
    """A step that the device may still be making.

    Parameters
    ----------
    step : int
        Its number.
    values : Tensor
        What it measures, on the device.
    names : sequence of str
        Of the parts of its loss.
    """

    def __init__(self, step: int, values: Tensor, names: Sequence[str]) -> None:
        self.step = step
        self.names = names
        self._done: torch.cuda.Event | None = None
        if values.is_cuda:
            self._values = torch.empty(values.shape, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()
        else:
            self._values = values

    @property
    def is_done(self) -> bool:
        """Whether `read` would not wait."""
        return self._done is None or self._done.query()

    def read(self) -> list[float]:
        """Wait for the step; return its loss, the parts, and the norm of the gradient."""
        if self._done is not None:
            self._done.synchronize()
        return self._values.tolist()


class _Recorded(NamedTuple):
    """Both parts of a recorded step."""

    passes: CapturedStep[Tensor]
    update: Captured[Tensor]


class Stepper:
    """The network on its device, with its optimiser.

    On a CUDA GPU a step is thousands of small kernels, and launching them takes
    longer than computing. So there all of it is recorded as two CUDA graphs, which
    are replayed: from cutting the crops to the gradients, and the update of the
    weights. Between them the processes of a team agree and add up their gradients.
    Where recording fails, steps are made as they come; the log says why.

    Attributes
    ----------
    batch : BatchPlan
        The micro-batch shrinks when memory runs out.
    runtime : Runtime
        Device and precision.
    updater : Updater
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
    capture : bool
        Whether to record steps where that is possible.
    """

    def __init__(self, task: Task, runtime: Runtime, *, capture: bool = True) -> None:
        self.batch = task.batch
        self.runtime = runtime
        self.updating = False
        self._task = task
        plan = runtime.plan
        with plan.active():
            task.module.to(plan.device).train()
            self.updater = Updater(task, scaled=plan.precision == "fp16")
        self._network = runtime.network(task.module)
        self._parameters = [p for p in task.module.parameters() if p.requires_grad]
        # A generator of its own, since others may train beside it.
        self._random = torch.Generator(plan.device)
        self._names: tuple[str, ...] = ()
        self._skipped = 0
        self._can_record = capture and plan.device.type == "cuda"
        self._recorded: _Recorded | None = None
        self._made: BatchPlan | None = None

    @property
    def is_warm(self) -> bool:
        """Whether the next step takes no longer than later ones: a like one was made."""
        return self._made == self.batch

    def share(self, first: int) -> tuple[int, int]:
        """Return the number of this process's first crop in a batch, and how many it makes.

        Parameters
        ----------
        first : int
            Number of the first crop of the batch.
        """
        return first + self.runtime.team.rank * self.batch.share, self.batch.share

    def launch(self, plan: CropPlan, step: int, rate: float | None) -> Launched | None:
        """Make one step, or halve the micro-batch.

        Parameters
        ----------
        plan : CropPlan
            Of this process's share of the batch, on the CPU.
        step : int
            Number of the step.
        rate : float or None
            Learning rate; None where another process leads and gives it.

        Returns
        -------
        Launched or None
            None where memory ran out, here or in another process: nothing has changed
            but `self.batch`, and the same step can be tried again.

        Raises
        ------
        OutOfMemoryError
            Not even one crop fits.
        OtherProcessError, DismissedError
            See `Team.agree`; nothing has changed.
        """
        device, team = self.runtime.plan, self.runtime.team
        inputs = (*plan, *self._task.common())
        seed = derived_seed(self._task.config.seed, Stream.DROPOUT, step, team.rank)
        with Shortage() as shortage, device.active():
            values = self._run(inputs, seed)
            add_up = team.summing([values, *self._gradients])
        agreed = team.agree(rate, short=shortage.reason is not None)
        if not agreed.short:
            with Shortage() as shortage, device.active():
                add_up()
                values = self._change_weights(values, agreed.rate)
                self._made = self.batch
                return Launched(step, values, self._names)
        self._make_room(shortage, step)
        return None

    def _make_room(self, shortage: Shortage, step: int) -> None:
        """Halve the micro-batch after memory ran out."""
        device = self.runtime.plan
        self.updating, was_updating = False, self.updating
        self.release()
        self._forget_gradients()
        device.release_memory()
        if shortage.reason is not None and (self.batch.micro_batch == 1 or was_updating):
            where = "in the optimiser" if was_updating else "with a single crop"
            raise shortage.error(
                device,
                f"step {step} failed {where}: it does not fit",
                "Use a smaller crop or preset",
            )
        self.batch = self.batch.halved()

    def read(self, launched: Launched) -> Measured:
        """Wait for a step and look at what it measured.

        Raises
        ------
        DivergedError
            The loss or gradient is not finite; the step has changed no weight.
        """
        loss, *parts, norm = launched.read()
        if not math.isfinite(loss):
            raise self._diverged(launched.step, f"the loss is {loss}")
        measured = dict(zip(launched.names, parts, strict=True))
        if math.isfinite(norm):
            self._skipped = 0
            return Measured(loss, measured, norm)
        self._skipped += 1
        if self.runtime.plan.precision != "fp16" or self._skipped > _MOST_SKIPPED:
            raise self._diverged(launched.step, f"the norm of the gradient is {norm}")
        return Measured(loss, measured, None)

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
        finite = [parameter.isfinite().all() for parameter in self._parameters]
        if not torch.stack(finite).all():
            raise self._diverged(step, "weights are not finite")

    def release(self) -> bool:
        """Hand back the memory of the recorded step, which is recorded anew when needed.

        Returns
        -------
        bool
            Whether there was one.
        """
        had_one = self._recorded is not None
        self._recorded = None
        self._made = None
        if had_one:
            self._forget_gradients()
            self.runtime.plan.release_memory()
        return had_one

    def _run(self, inputs: tuple[Tensor, ...], seed: int) -> Tensor:
        """Make the gradients of this process's crops; return losses, summed over crops."""
        if self._recorded is None and self._can_record:
            self._record(inputs)
        # A step must draw the same numbers whether it is the one that is recorded or a later one.
        self._random.manual_seed(seed)
        with drawing_from(self._random):
            if self._recorded is None:
                return self._passes(*self.runtime.to_device(inputs))
            # Pinned, since copies from other memory may wait for the step before.
            return self._recorded.passes(*(tensor.pin_memory() for tensor in inputs))

    def _change_weights(self, values: Tensor, rate: float) -> Tensor:
        """Update the weights; return what the step measures, see `Launched.read`."""
        self.updating = True
        if self._recorded is None:
            norm = self.updater(*self.runtime.to_device((torch.tensor(rate),)))
        else:
            norm = self._recorded.update(torch.tensor(rate).pin_memory())
        self.updating = False
        return torch.cat([values, norm.reshape(1)])

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        """Record a step; where that fails, never try again."""
        device = self.runtime.plan.device
        # One that a failed recording has used cannot be used again.
        generator = torch.Generator(device)
        memory = GraphMemory(device)
        try:
            with drawing_from(generator):
                passes = CapturedStep(
                    self._passes,
                    self.runtime.to_device(inputs),
                    self._parameters,
                    generator=generator,
                    memory=memory,
                )
            update = Captured(
                self.updater,
                self.runtime.to_device((torch.zeros(()),)),
                rehearse=lambda _: self.updater.prepare(),
                memory=memory,
            )
            self._recorded = _Recorded(passes, update)
            self._random = generator
        except CaptureError as error:
            # The error itself would keep this frame, with its tensors.
            reason = str(error)
            logger.warning("training steps are not recorded as CUDA graphs, so slower: %s", reason)
            self._can_record = False

    def _passes(self, *inputs: Tensor) -> Tensor:
        """Add up the gradients of the micro-batches, so that they are those of the batch."""
        self._forget_gradients()
        fields = len(CropPlan._fields)
        common = inputs[fields:]
        parts = zip(
            *(field.split(self.batch.micro_batch) for field in inputs[:fields]), strict=True
        )
        values = [self._pass(part, common) for part in starmap(CropPlan, parts)]
        return torch.stack(values).sum(0)

    def _pass(self, plan: CropPlan, common: Sequence[Tensor]) -> Tensor:
        share = len(plan.offset) / self.batch.batch
        batch = self._task.cut(plan)
        # A recorded pass must not use what autocast has kept from before.
        with self.runtime.computing(keep_casts=False):
            loss, losses = self._task.loss(self._network, *batch, *common)
        self.updater.scaled(loss * share).backward()
        self._names = tuple(losses)
        return torch.stack([value.detach() for value in (loss, *losses.values())]) * share

    @property
    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self._parameters if p.grad is not None]

    def _forget_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _diverged(self, step: int, what: str) -> DivergedError:
        config = self._task.config
        advice = f"start again with a learning rate below {config.learning_rate:g}"
        if self.runtime.plan.precision != "fp32":
            advice += ", or resume with precision fp32"
        return DivergedError(
            f"training diverged in step {step}: {what}. Checkpoints up to the last one are "
            f"intact; {advice}"
        )
