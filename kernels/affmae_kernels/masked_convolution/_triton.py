"""The masked convolution on Triton kernels: launchers, autograd, operation counts."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from affmae_kernels._launch import blocks, next_power_of_2, on_device_of, to_autocast
from affmae_kernels.masked_convolution import _kernels

# Pixels of a program, and the programs of a backward pass.
PIXELS = 16
WARPS = 1
PROGRAMS = 1024
_KERNEL = 9
_LEAST_ROWS = 16  # what the matrix units take
_EPSILON = 1e-5


def masked_convolution_triton(
    x: Tensor,
    visible: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    """See `affmae_kernels.masked_convolution`."""
    (weight,) = to_autocast(weight)
    out: Tensor = masked_convolution_forward(
        x.contiguous(),
        None if visible is None else visible.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        norm_weight.contiguous(),
        norm_bias.contiguous(),
    )
    return out.permute(0, 3, 1, 2)


@torch.library.custom_op("affmae::masked_convolution", mutates_args=())
def masked_convolution_forward(
    x: Tensor,
    visible: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    """Convolve; see `masked_convolution`.

    Returns
    -------
    Tensor, shape (B, H / 2, W / 2, C), dtype of `weight`
    """
    out = _result(x, weight)
    pixels = out.shape[1] * out.shape[2]
    with on_device_of(x):
        _kernels._masked_convolution_fwd_kernel[blocks(pixels, PIXELS), len(x)](
            x, x if visible is None else visible, _by_tap(weight), bias,
            norm_weight, norm_bias, out, *_sizes(x, visible, weight),
            **_constants(x, visible, weight),
        )  # fmt: skip
    return out


@torch.library.custom_op("affmae::masked_convolution_backward", mutates_args=())
def masked_convolution_backward(
    grad: Tensor,
    x: Tensor,
    visible: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of `masked_convolution_forward`, none for the image.

    Returns
    -------
    grad_weight : Tensor of float32, shape (C, c, 3, 3)
    small : Tensor of float32, shape (3, C)
        Those of bias, norm weight and norm bias.
    """
    constants = _constants(x, visible, weight)
    taps, outputs = constants["TAPS"], len(weight)
    pixels = grad.shape[1] * grad.shape[2]
    steps = blocks(pixels * len(x), PIXELS * PROGRAMS)
    programs = blocks(pixels, PIXELS * steps)
    partial = x.new_empty((len(x) * programs, taps + 3, outputs), dtype=torch.float32)
    with on_device_of(x):
        _kernels._masked_convolution_bwd_kernel[programs, len(x)](
            grad.contiguous(), x, x if visible is None else visible, _by_tap(weight), bias,
            norm_weight, norm_bias, partial, *_sizes(x, visible, weight), steps, **constants,
        )  # fmt: skip
    summed = partial.sum(0)
    grad_weight = summed[: weight[0].numel()].mT.contiguous().view(weight.shape)
    return grad_weight, summed[taps:].clone()


def _by_tap(weight: Tensor) -> Tensor:
    """Put the outputs last, as (9 * c, C): a program reads all outputs of a tap."""
    return weight.flatten(1).mT.contiguous()


def _result(x: Tensor, weight: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    return weight.new_empty((batch, height // 2, width // 2, len(weight)))


def _sizes(x: Tensor, visible: Tensor | None, weight: Tensor) -> tuple[int | float, ...]:
    _, channels, height, width = x.shape
    columns = width // 2 if visible is None else visible.shape[-1]
    return height, width, columns, width // 2 // columns, channels, len(weight), _EPSILON


def _constants(x: Tensor, visible: Tensor | None, weight: Tensor) -> dict[str, Any]:
    return {
        "MASKED": visible is not None,
        "TAPS": max(next_power_of_2(_KERNEL * x.shape[1]), _LEAST_ROWS),
        "OUTPUTS": max(next_power_of_2(len(weight)), _LEAST_ROWS),
        "PIXELS": PIXELS,
        "num_warps": WARPS,
    }


@masked_convolution_forward.register_fake
def _(x: Tensor, _visible: Tensor | None, weight: Tensor, *_: Tensor) -> Tensor:
    return _result(x, weight)


@masked_convolution_backward.register_fake
def _(
    _grad: Tensor, x: Tensor, _visible: Tensor | None, weight: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor]:
    grad_weight = torch.empty_like(weight, dtype=torch.float32)
    return grad_weight, x.new_empty((3, len(weight)), dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    grad_weight, small = masked_convolution_backward(grad, *saved)
    grads = (grad_weight, *small.unbind(0))
    return None, None, *(g.to(t.dtype) for g, t in zip(grads, saved[2:], strict=True))


masked_convolution_forward.register_autograd(_differentiate, setup_context=_save)


def _convolution_flops(x: tuple[int, ...], weight: tuple[int, ...]) -> int:
    batch, channels, height, width = x
    return 2 * batch * (height // 2) * (width // 2) * weight[0] * _KERNEL * channels


@register_flop_formula(torch.ops.affmae.masked_convolution)
def _forward_flops(
    x: tuple[int, ...], _visible: Any, weight: tuple[int, ...], *_: Any,
    out_val: Any = None, **__: Any,
) -> int:  # fmt: skip
    """Count the convolution."""
    return _convolution_flops(x, weight)


@register_flop_formula(torch.ops.affmae.masked_convolution_backward)
def _backward_flops(
    _grad: Any, x: tuple[int, ...], _visible: Any, weight: tuple[int, ...], *_: Any,
    out_val: Any = None, **__: Any,
) -> int:  # fmt: skip
    """Count the convolution, computed again, and the gradient of its weights."""
    return 2 * _convolution_flops(x, weight)
