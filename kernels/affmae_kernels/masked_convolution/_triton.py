"""The masked convolution on Triton kernels: launchers, autograd, operation counts."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from affmae_kernels._launch import blocks, either, next_power_of_2, on_device_of, to_autocast
from affmae_kernels.column_sums._triton import sum_parts
from affmae_kernels.masked_convolution import _kernels

# The number of pixels that a program works on at once, and of programs of a backward pass.
PIXELS = 16
WARPS = 1
PROGRAMS = 1024
_KERNEL = 9
_LEAST_ROWS = 16  # the fewest rows that the matrix units take
_EPSILON = 1e-5


def masked_convolution_triton(
    x: Tensor,
    visible: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    gathered: bool,
) -> Tensor:
    """See `affmae_kernels.masked_convolution`; `gathered` says to convolve in the kernel."""
    (weight,) = to_autocast(weight)
    small = (bias.contiguous(), norm_weight.contiguous(), norm_bias.contiguous())
    visible = None if visible is None else visible.contiguous()
    if gathered:
        x, kernel = x.contiguous(), weight.contiguous()
    else:
        x = x.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        convolved = F.conv2d(x, weight, stride=2, padding=1)
        x, kernel = convolved.permute(0, 2, 3, 1).contiguous(), None
    out: Tensor = masked_convolution_forward(x, visible, kernel, *small)
    return out.permute(0, 3, 1, 2)


@torch.library.custom_op("affmae::masked_convolution", mutates_args=())
def masked_convolution_forward(
    x: Tensor,
    visible: Tensor | None,
    weight: Tensor | None,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    """Compute the masked convolution; see `masked_convolution`.

    Parameters
    ----------
    x : Tensor, shape (B, c, H, W); without a weight (B, H / 2, W / 2, C)
        The images, or without a weight the result of their convolution.

    Returns
    -------
    Tensor, shape (B, H / 2, W / 2, C)
        It has the type of `weight`, or without one that of `x`.
    """
    out = _result(x, weight)
    pixels = out.shape[1] * out.shape[2]
    with on_device_of(x):
        _kernels._masked_convolution_fwd_kernel[blocks(pixels, PIXELS), len(x)](
            x, either(visible, x), _by_tap(weight, x), bias,
            norm_weight, norm_bias, out, *_sizes(x, visible, weight),
            **_constants(x, visible, weight),
        )  # fmt: skip
    return out


@torch.library.custom_op("affmae::masked_convolution_backward", mutates_args=())
def masked_convolution_backward(
    grad: Tensor,
    x: Tensor,
    visible: Tensor | None,
    weight: Tensor | None,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of `masked_convolution_forward`, none for the image.

    Returns
    -------
    large : Tensor
        The gradient of `weight`, (C, c, 3, 3) float32; without one that of `x`.
    small : Tensor of float32, shape (3, C)
        The gradients of bias, norm weight and norm bias.
    """
    constants = _constants(x, visible, weight)
    outputs = len(bias)
    taps = 0 if weight is None else constants["TAPS"]
    pixels = grad.shape[1] * grad.shape[2]
    steps = blocks(pixels * len(x), PIXELS * PROGRAMS)
    programs = blocks(pixels, PIXELS * steps)
    partial = x.new_empty((len(x) * programs, taps + 3, outputs), dtype=torch.float32)
    grad_x = torch.empty_like(x) if weight is None else partial
    with on_device_of(x):
        _kernels._masked_convolution_bwd_kernel[programs, len(x)](
            grad.contiguous(), x, either(visible, x), _by_tap(weight, x), bias,
            norm_weight, norm_bias, grad_x, partial, *_sizes(x, visible, weight), steps,
            **constants,
        )  # fmt: skip
    summed = sum_parts(partial)
    if weight is None:
        return grad_x, summed
    grad_weight = summed[: weight[0].numel()].mT.contiguous().view(weight.shape)
    return grad_weight, summed[taps:].clone()


def _by_tap(weight: Tensor | None, x: Tensor) -> Tensor:
    """Put the outputs last, as (9 * c, C): a program reads all outputs of a tap."""
    return x if weight is None else weight.flatten(1).mT.contiguous()


def _result(x: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return torch.empty_like(x)
    batch, _, height, width = x.shape
    return weight.new_empty((batch, height // 2, width // 2, len(weight)))


def _sizes(x: Tensor, visible: Tensor | None, weight: Tensor | None) -> tuple[int | float, ...]:
    if weight is None:
        _, half_height, half, outputs = x.shape
        height, width, channels = 2 * half_height, 2 * half, outputs
    else:
        _, channels, height, width = x.shape
        half, outputs = width // 2, len(weight)
    columns = half if visible is None else visible.shape[-1]
    return height, width, columns, half // columns, channels, outputs, _EPSILON


def _constants(x: Tensor, visible: Tensor | None, weight: Tensor | None) -> dict[str, Any]:
    channels, outputs = (1, x.shape[3]) if weight is None else (x.shape[1], len(weight))
    return {
        "MASKED": visible is not None,
        "CONVOLVED": weight is None,
        "TAPS": max(next_power_of_2(_KERNEL * channels), _LEAST_ROWS),
        "OUTPUTS": max(next_power_of_2(outputs), _LEAST_ROWS),
        "PIXELS": PIXELS,
        "num_warps": WARPS,
    }


@masked_convolution_forward.register_fake
def _(x: Tensor, _visible: Tensor | None, weight: Tensor | None, *_: Tensor) -> Tensor:
    return _result(x, weight)


@masked_convolution_backward.register_fake
def _(
    _grad: Tensor, x: Tensor, _visible: Tensor | None, weight: Tensor | None, bias: Tensor,
    *_: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    large = (
        torch.empty_like(x)
        if weight is None
        else weight.new_empty(weight.shape, dtype=torch.float32)
    )
    return large, x.new_empty((3, len(bias)), dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    weight = saved[2]
    large, small = masked_convolution_backward(grad, *saved)
    grads = (g.to(t.dtype) for g, t in zip(small.unbind(0), saved[3:], strict=True))
    if weight is None:
        return large, None, None, *grads
    return None, None, large.to(weight.dtype), *grads


masked_convolution_forward.register_autograd(_differentiate, setup_context=_save)


def _convolution_flops(x: tuple[int, ...], weight: tuple[int, ...]) -> int:
    batch, channels, height, width = x
    return 2 * batch * (height // 2) * (width // 2) * weight[0] * _KERNEL * channels


@register_flop_formula(torch.ops.affmae.masked_convolution)
def _forward_flops(
    x: tuple[int, ...], _visible: Any, weight: tuple[int, ...] | None, *_: Any,
    out_val: Any = None, **__: Any,
) -> int:  # fmt: skip
    """Count the convolution, if the kernel computes it."""
    return 0 if weight is None else _convolution_flops(x, weight)


@register_flop_formula(torch.ops.affmae.masked_convolution_backward)
def _backward_flops(
    _grad: Any, x: tuple[int, ...], _visible: Any, weight: tuple[int, ...] | None, *_: Any,
    out_val: Any = None, **__: Any,
) -> int:  # fmt: skip
    """Count the convolution, computed again, and the gradient of its weights."""
    return 0 if weight is None else 2 * _convolution_flops(x, weight)
