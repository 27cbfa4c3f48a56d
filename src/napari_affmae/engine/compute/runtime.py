"""Lightning Fabric, set up for one process on the planned device.

Fabric gives mixed precision, loss scaling, gradient clipping and data movement.
Two of its habits are not taken over: modules are called directly, inside
`Runtime.computing`, because a module wrapped by Fabric would round its inputs to
16 bits, and a masked autoencoder's inputs are also its targets; and checkpoints
are our own safetensors, to which Fabric contributes the loss scaler's state.

Importing it takes seconds, so `napari_affmae.engine` does that when a run starts.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn

from napari_affmae.engine.compute.device import DevicePlan
from napari_affmae.engine.events import Notice, RunStarted
from napari_affmae.model.capture import Copies

# Fabric writes to stderr by a handler of its own; its messages belong to the log.
_log = logging.getLogger("lightning_fabric")
_log.handlers.clear()
_log.propagate = True

KERNELS_COME = (
    "the first pass compiles kernels for this GPU, which takes up to a minute where it has not "
    "been done before; they are kept for later runs"
)
_PRECISION = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}


class Runtime:
    """The planned device and precision, at work.

    Attributes
    ----------
    plan : DevicePlan
        Device and precision.
    fabric : Fabric
        For one device of one process.
    """

    def __init__(self, plan: DevicePlan) -> None:
        self.plan = plan
        # The environment is given because Fabric would otherwise look for cluster
        # managers and warn about those that it finds beside a single process.
        self.fabric = Fabric(
            accelerator=plan.device.type,
            devices=1 if plan.device.type == "cpu" else [plan.device.index or 0],
            precision=_PRECISION[plan.precision],  # type: ignore[arg-type]
            plugins=[LightningEnvironment()],
        )

    @contextmanager
    def computing(self, *, keep_casts: bool = True) -> Iterator[None]:
        """Enter device and precision, which belong to the thread: a block must not yield.

        Parameters
        ----------
        keep_casts : bool
            Whether weights that were cast to 16 bits are kept until the block ends.
        """
        with self.plan.active(), self.fabric.autocast():
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
        return tuple(self.fabric.to_device(tensor) for tensor in tensors)

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
            device=self.plan.words,
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

    @property
    def scaler(self) -> dict[str, float]:
        """State of the loss scaler; empty unless the precision is fp16."""
        return dict(self.fabric.strategy.precision.state_dict())

    def load_scaler(self, state: Mapping[str, float]) -> None:
        """Restore the loss scaler; a precision without one needs none."""
        if self.scaler and state:
            self.fabric.strategy.precision.load_state_dict(dict(state))


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
