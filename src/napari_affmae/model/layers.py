"""Small layers that encoder and decoder share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from affmae_kernels import residual_norm


class MLP(nn.Module):
    """Linear, GELU, Linear.

    Parameters
    ----------
    width, hidden : int
        Channels outside and inside.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return recomputed_linear(F.gelu, [self.expand(x)], self.contract.weight, self.contract.bias)


class Norm(nn.LayerNorm):
    """Layer normalisation, of a tensor or of the sum of a tensor and a dropped branch.

    Parameters
    ----------
    width : int
        Channels C.
    dropout : float
        Share of the branch's elements zeroed in training.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__(width)
        self.dropout = dropout

    def forward(self, x: Tensor, branch: Tensor | None = None) -> Tensor:
        """Normalise `x` (..., C), plus `branch` if there is one."""
        rate = self.dropout if self.training else 0.0
        return residual_norm(x, branch, self.weight, self.bias, rate, self.eps)


def draw_paths(rates: Tensor, batch: int) -> Tensor:
    """Draw which images skip which branches (stochastic depth), for all blocks at once.

    Parameters
    ----------
    rates : Tensor
        (blocks,), the share of images that skip a branch of a block.
    batch : int
        Number of images B.

    Returns
    -------
    Tensor
        (blocks, 2, B, 1, 1), what to multiply a block's two branches with: 0
        where they are skipped, and what keeps the mean elsewhere.
    """
    rates = rates[:, None, None, None, None]
    drawn = torch.rand(len(rates), 2, batch, 1, 1, device=rates.device)
    return (drawn >= rates) / (1 - rates)


def recompute(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Apply `function`, and again in the backward pass instead of keeping what it computes.

    For cheap functions of large tensors: memory is what limits the image size.

    Parameters
    ----------
    function : Callable
        Draws no random numbers, and uses no other tensors that need gradients.
    *inputs : Tensor
        Its arguments, weights included.
    """
    if torch.compiler.is_compiling():
        # The compiler knows this one. On its own its first call would load the compiler,
        # 150 MiB of it.
        out: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return out
    recomputed: Tensor = _Recompute.apply(function, *inputs)
    return recomputed


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.function, ctx.autocast = function, _autocast_of(inputs[0])
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = _leaves(ctx.saved_tensors, ctx.needs_input_grad[1:])
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            out = ctx.function(*inputs)
        return None, *_pull_back(out, inputs, grad)


def recomputed_linear(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], weight: Tensor, bias: Tensor
) -> Tensor:
    """Apply `function`, then a linear layer; of what lies between nothing is kept.

    Unlike with `recompute`, the backward pass does not multiply by the weights
    again to no use.

    Parameters
    ----------
    function : Callable
        Draws no random numbers, and uses no other tensors that need gradients.
    inputs : sequence of Tensor
        Its arguments, weights included.
    weight, bias : Tensor
        (outputs, width) and (outputs,), of the linear layer.
    """
    if torch.compiler.is_compiling():
        out: Tensor = checkpoint(
            lambda w, b, *x: F.linear(function(*x), w, b),
            *(weight, bias, *inputs),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return out
    recomputed: Tensor = _RecomputedLinear.apply(function, weight, bias, *inputs)
    return recomputed


class _RecomputedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        weight: Tensor,
        bias: Tensor,
        *inputs: Tensor,
    ) -> Tensor:
        ctx.function, ctx.autocast = function, _autocast_of(weight)
        ctx.save_for_backward(weight, *inputs)
        return F.linear(function(*inputs), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *inputs = ctx.saved_tensors
        inputs = _leaves(inputs, ctx.needs_input_grad[3:])
        with torch.autocast(*ctx.autocast):
            with torch.enable_grad():
                between = ctx.function(*inputs)
            rows = grad.flatten(0, -2)
            d_weight = rows.mT @ between.detach().flatten(0, -2)
            d_between = (grad @ weight).to(between.dtype)
        return None, d_weight, rows.sum(0), *_pull_back(between, inputs, d_between)


def _autocast_of(tensor: Tensor) -> tuple[str, torch.dtype, bool]:
    device = tensor.device.type
    return device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)


def _leaves(tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor]:
    return [t.detach().requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]


def _pull_back(out: Tensor, leaves: Sequence[Tensor], grad: Tensor) -> list[Tensor | None]:
    """Compute the gradients of those leaves that want one."""
    grads = iter(torch.autograd.grad(out, [t for t in leaves if t.requires_grad], grad))
    return [next(grads) if t.requires_grad else None for t in leaves]


def initialise(module: nn.Module) -> None:
    """Draw a linear layer's weights from a truncated normal, std 0.02, and zero its bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
