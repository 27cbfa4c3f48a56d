"""What a step does after its backward pass, without the host: clip, scale, update."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from napari_affmae.config import TrainingConfig
from napari_affmae.engine.training.steps.optimiser import load_state_tensors, make_optimiser
from napari_affmae.engine.training.steps.task import Task

# Those of torch's GradScaler: halve where a gradient overflows, double after so many steps.
_FIRST_SCALE = 2.0**16
_GROWTH, _BACKOFF, _GROWTH_STEPS = 2.0, 0.5, 2000


class Updater:
    """AdamW with clipping and, at fp16, loss scaling, all on the device.

    A gradient that is not finite changes nothing but the scale. On CPUs and CUDA
    one fused kernel divides the gradient by what clipping and scaling ask for, and
    skips such steps; on other devices the host looks at each gradient.

    Parameters
    ----------
    task : Task
        Its network is on the device.
    scaled : bool
        Whether losses are scaled up, so that fp16 holds their gradients.

    Attributes
    ----------
    optimiser : torch.optim.AdamW
        Of the network.
    """

    def __init__(self, task: Task, *, scaled: bool) -> None:
        config: TrainingConfig = task.config
        self._clip = config.clip
        self._parameters = [p for p in task.module.parameters() if p.requires_grad]
        device = self._parameters[0].device
        self._fused = device.type in {"cpu", "cuda"}
        self.optimiser = make_optimiser(
            task.module, config.betas, config.weight_decay, task.rate_scale, fused=self._fused
        )
        factors = [group["scale"] for group in self.optimiser.param_groups]
        self._factors = torch.tensor(factors, device=device)
        self._rates = torch.zeros_like(self._factors)
        self._share_rates()
        self._scaled = scaled
        self._scale = torch.full((), _FIRST_SCALE if scaled else 1.0, device=device)
        self._growth = torch.zeros((), dtype=torch.int32, device=device)

    def scaled(self, loss: Tensor) -> Tensor:
        """Scale a loss before its backward pass."""
        return loss * self._scale if self._scaled else loss

    def __call__(self, rate: Tensor) -> Tensor:
        """Update the weights by their gradients.

        Parameters
        ----------
        rate : Tensor
            () float32, on the device: the learning rate.

        Returns
        -------
        Tensor
            () float32: norm of the gradient before clipping; where it is not
            finite the weights are as before.
        """
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) / self._scale
        found_inf = (~norm.isfinite()).float()
        divisor = self._scale * ((norm + 1e-6) / self._clip).clamp(min=1)
        torch.mul(self._factors, rate, out=self._rates)
        if self._fused:
            self._apply(divisor, found_inf)
        elif not found_inf.item():
            torch._foreach_div_(gradients, divisor)
            for group, lr in zip(self.optimiser.param_groups, self._rates.tolist(), strict=True):
                group["lr"] = lr
            self.optimiser.step()
        if self._scaled:
            torch._amp_update_scale_(
                self._scale, self._growth, found_inf, _GROWTH, _BACKOFF, _GROWTH_STEPS
            )
        return norm

    def prepare(self) -> None:
        """Make the optimiser's state, which a recording must find, changing no weight."""
        if not self.optimiser.state:
            one = torch.ones_like(self._scale)
            self._apply(one, one)

    @property
    def scaler(self) -> dict[str, float]:
        """State of the loss scaler; empty where losses are not scaled."""
        if not self._scaled:
            return {}
        return {"scale": self._scale.item(), "_growth_tracker": int(self._growth.item())}

    def load(self, module: nn.Module, tensors: Mapping[str, Tensor], scaler: Any) -> None:
        """Go on from a checkpoint.

        Parameters
        ----------
        module : nn.Module
            The network.
        tensors : Mapping[str, Tensor]
            From `state_tensors`.
        scaler : Mapping[str, float]
            From `scaler`; a run that goes on in another precision may have none.

        Raises
        ------
        CheckpointError
            If the tensors do not fit the network.
        """
        load_state_tensors(module, self.optimiser, tensors)
        self._share_rates()
        if self._scaled and scaler:
            self._scale.fill_(scaler["scale"])
            self._growth.fill_(scaler["_growth_tracker"])

    def _share_rates(self) -> None:
        """Let the groups read their rates where `__call__` writes them."""
        if self._fused:
            for group, lr in zip(self.optimiser.param_groups, self._rates, strict=True):
                group["lr"] = lr

    def _apply(self, divisor: Tensor, skip: Tensor) -> None:
        # The names by which torch's own GradScaler hands both to fused optimisers.
        vars(self.optimiser).update(grad_scale=divisor, found_inf=skip)
        self.optimiser.step()
