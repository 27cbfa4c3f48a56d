"""Small layers that encoder and decoder share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from affmae_kernels import column_sums, gelu, generator_of, residual_norm


class Branch(NamedTuple):
    """What the next norm adds to the tokens; see `Norm.add`.

    Attributes
    ----------
    value : Tensor
        (B, ..., C).
    bias : Tensor or None
        (C,), still to be added.
    factors : Tensor or None
        (B,), still to be multiplied with.
    """

    value: Tensor
    bias: Tensor | None = None
    factors: Tensor | None = None


class Linear(nn.Linear):
    """A linear layer whose backward pass suits a GPU.

    Its gradients come in float32, as the optimiser takes them; that of the bias
    is summed by a fast kernel, or left to the kernel that adds the bias.

    Attributes
    ----------
    copies : tuple of Tensor, or None
        Weight and bias in autocast's type, where they were cast before; see
        `capture.Copies`.
    """

    copies: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        if not x.is_cuda:
            return super().forward(x)
        out: Tensor = _Linear.apply(x, self.weight, self.bias, *operands(self))
        return out

    def deferred(self, x: Tensor) -> Branch:
        """Do the same, but on a GPU leave the bias to the kernel that comes next."""
        if not x.is_cuda:
            return Branch(super().forward(x))
        return Branch(_Linear.apply(x, self.weight, None, operands(self)[0], None), self.bias)


def operands(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer in the type in which it computes."""
    if isinstance(linear, Linear) and linear.copies is not None:
        return linear.copies
    _, dtype, enabled = _autocast_of(linear.weight)
    if not enabled:
        return linear.weight, linear.bias
    return linear.weight.to(dtype), linear.bias.to(dtype)


class _Linear(torch.autograd.Function):
    """Takes parameters for their gradients' sake, and computes with their operands."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight_operand: Tensor,
        bias_operand: Tensor | None,
    ) -> Tensor:
        del weight
        x = x.to(weight_operand.dtype)
        ctx.biased = bias is not None
        ctx.save_for_backward(x, weight_operand)
        return F.linear(x, weight_operand, bias_operand)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradients = linear_gradients(grad, x, weight, biased=ctx.biased)
        return *gradients, None, None


def linear_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, *, biased: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Compute the gradients of a linear layer's inputs, weight and bias.

    Parameters
    ----------
    grad, x : Tensor
        (..., outputs), (..., inputs).
    weight : Tensor
        (outputs, inputs).
    biased : bool
        Whether the bias wants a gradient.

    Returns
    -------
    tuple of Tensor
        The first of the type of `x`, the others float32 where that has 16 bits and is on a GPU.
    """
    left, right = grad.flatten(0, -2).mT, x.flatten(0, -2)
    exact = left.is_cuda and left.dtype in {torch.float16, torch.bfloat16}
    d_weight = torch.mm(left, right, out_dtype=torch.float32) if exact else left @ right
    return grad @ weight, d_weight, column_sums(grad) if biased else None


class MLP(nn.Module):
    """Linear, GELU, Linear.

    Parameters
    ----------
    width, hidden : int
        Channels outside and inside.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = Linear(width, hidden)
        self.contract = Linear(hidden, width)

    def forward(self, x: Tensor) -> Branch:
        """Map (..., width) to the same shape."""
        hidden, bias, _ = self.expand.deferred(x)
        if bias is None:
            return Branch(recomputed_linear(gelu, [hidden], self.contract))
        without_bias = recomputed_linear(gelu, [hidden, bias], self.contract, biased=False)
        return Branch(without_bias, self.contract.bias)


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

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (..., C)."""
        return residual_norm(x, None, self.weight, self.bias, epsilon=self.eps)[0]

    def add(self, x: Tensor, branch: Branch | None) -> tuple[Tensor, Tensor]:
        """Add `branch` to `x` (B, ..., C); returns the norm of the sum, and the sum."""
        value, bias, factors = (None, None, None) if branch is None else branch
        return residual_norm(
            x,
            value,
            self.weight,
            self.bias,
            branch_bias=bias,
            factors=factors,
            rate=self.dropout if self.training else 0.0,
            epsilon=self.eps,
        )


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
        (blocks, 2, B), what to multiply a block's two branches with: 0 where
        they are skipped, and what keeps the mean elsewhere.
    """
    rates = rates[:, None, None]
    drawn = torch.rand(
        len(rates), 2, batch, device=rates.device, generator=generator_of(rates.device)
    )
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
    # Not by torch's `checkpoint`, whose first call loads the compiler, 150 MiB of it.
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
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    linear: nn.Linear,
    *,
    biased: bool = True,
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
    linear : nn.Linear
        With a bias.
    biased : bool
        Whether the layer's bias is added.
    """
    weight_operand, bias_operand = operands(linear)
    recomputed: Tensor = _RecomputedLinear.apply(
        function,
        linear.weight,
        linear.bias if biased else None,
        weight_operand,
        bias_operand if biased else None,
        *inputs,
    )
    return recomputed


class _RecomputedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        weight: Tensor,
        bias: Tensor | None,
        weight_operand: Tensor,
        bias_operand: Tensor | None,
        *inputs: Tensor,
    ) -> Tensor:
        ctx.function, ctx.autocast, ctx.biased = function, _autocast_of(weight), bias is not None
        ctx.save_for_backward(weight_operand, *inputs)
        between = function(*inputs).to(weight_operand.dtype)
        return F.linear(between, weight_operand, bias_operand)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *inputs = ctx.saved_tensors
        inputs = _leaves(inputs, ctx.needs_input_grad[5:])
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            between = ctx.function(*inputs)
        d_between, d_weight, d_bias = linear_gradients(
            grad, between.detach().to(weight.dtype), weight, biased=ctx.biased
        )
        pulled = _pull_back(between, inputs, d_between.to(between.dtype))
        return None, d_weight, d_bias, None, None, *pulled


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
