"""A planned device and precision, at work."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from napari_affmae.engine.compute.device import DevicePlan
from napari_affmae.engine.compute.distributed import Team
from napari_affmae.engine.events import Notice, RunStarted
from napari_affmae.model.capture import Copies

KERNELS_COME = (
    "the first pass compiles kernels for this GPU, which takes up to a minute where it has not "
    "been done before; they are kept for later runs"
)


class Runtime:
    """The planned device and precision, at work.

    Attributes
    ----------
    plan : DevicePlan
        Device and precision.
    team : Team
        The processes that train together.
    """

    def __init__(self, plan: DevicePlan, team: Team | None = None) -> None:
        self.plan = plan
        self.team = team or Team()

    @contextmanager
    def computing(self, *, keep_casts: bool = True) -> Iterator[None]:
        """Enter device and precision, which belong to the thread: a block must not yield.

        Parameters
        ----------
        keep_casts : bool
            Whether weights that were cast to 16 bits are kept until the block ends.
        """
        with self.plan.active(), self._autocast():
            before = torch.is_autocast_cache_enabled()
            torch.set_autocast_cache_enabled(keep_casts and before)
            try:
                yield
            finally:
                torch.set_autocast_cache_enabled(before)

    def network(self, module: nn.Module) -> nn.Module:
        """Return what to call instead of a network that is called again and again.

        Parameters
        ----------
        module : nn.Module
            The network, on the device.

        Returns
        -------
        nn.Module
            On a GPU at 16 bits, where each cast is a launch, one that casts all
            weights at once; else the same.
        """
        if self.plan.device.type == "cuda" and self.plan.precision != "fp32":
            return Copies(module, self.plan.dtype)
        return module

    def to_device(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Move tensors to the device."""
        return tuple(tensor.to(self.plan.device, non_blocking=True) for tensor in tensors)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.plan.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.plan.device.type, self.plan.dtype)

    def started(
        self,
        module: nn.Module,
        batch: int,
        micro_batch: int,
        *,
        step: int = 0,
        total_steps: int | None = None,
    ) -> RunStarted:
        """Tell where a run computes and what it settled on."""
        return RunStarted(
            device=self.team.words(self.plan.words),
            on_gpu=self.plan.device.type != "cpu",
            precision=self.plan.precision,
            backend=self.plan.backend,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            batch=batch,
            micro_batch=micro_batch,
            step=step,
            total_steps=total_steps,
        )

    def first_pass(self) -> Iterator[Notice]:
        """Tell what keeps the first pass waiting."""
        if self.plan.device.type == "cuda" and self.plan.backend == "Triton kernels":
            yield Notice(KERNELS_COME, "info")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off for a block that does not yield."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(was_training)
