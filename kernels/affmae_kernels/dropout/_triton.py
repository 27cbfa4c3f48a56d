"""Dropout on Triton kernels: launchers and autograd."""

from typing import Any

import torch
from torch import Tensor

from affmae_kernels._launch import blocks, on_device_of
from affmae_kernels.dropout import _kernels

BLOCK = 1024
WARPS = 4
_NOISE = 2**24


def draw_seed(device: torch.device) -> Tensor:
    """Draw the seed of one call, on the device: nothing waits for it."""
    return torch.randint(2**31, (1,), device=device)


def noise(rate: float) -> tuple[int, float]:
    """Return below which hash an element is dropped, and the factor of the others."""
    return round(rate * _NOISE), 1 / (1 - rate)


def relu_dropout_triton(x: Tensor, rate: float) -> Tensor:
    """See `affmae_kernels.relu_dropout`."""
    out: Tensor = relu_dropout_forward(x.contiguous(), draw_seed(x.device), rate)
    return out


@torch.library.custom_op("affmae::relu_dropout", mutates_args=())
def relu_dropout_forward(x: Tensor, seed: Tensor, rate: float) -> Tensor:
    """Drop; see `relu_dropout`. `seed` is (1,) int64."""
    out = torch.empty_like(x)
    with on_device_of(x):
        _kernels._relu_dropout_kernel[(blocks(x.numel(), BLOCK),)](
            x, seed, out, x.numel(), *noise(rate), BLOCK=BLOCK, num_warps=WARPS
        )
    return out


@relu_dropout_forward.register_fake
def _(x: Tensor, _seed: Tensor, _rate: float) -> Tensor:
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.rate = inputs[2]
    ctx.save_for_backward(output)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    # What is positive was kept.
    (out,) = ctx.saved_tensors
    return torch.where(out > 0, grad * (1 / (1 - ctx.rate)), 0), None, None


relu_dropout_forward.register_autograd(_differentiate, setup_context=_save)
