"""The segmentation loss on Triton kernels: launchers and autograd."""

from typing import Any

import torch
from torch import Tensor

from affmae_kernels._launch import blocks, either, next_power_of_2, on_device_of
from affmae_kernels.dice_focal import _kernels

# A program holds so many numbers of each tensor, for so many pixels at least; and the number of
# programs forwards.
NUMBERS = 1024
FEWEST_PIXELS = 64
WARPS = 4
PROGRAMS = 1024


def dice_focal_triton(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, ignored: int
) -> Tensor:
    """See `affmae_kernels.dice_focal`."""
    if weight is not None:
        weight = weight.to(logits.device).contiguous()
    loss: Tensor = dice_focal_forward(logits, target, weight, gamma, ignored)[0]
    return loss


@torch.library.custom_op("affmae::dice_focal", mutates_args=())
def dice_focal_forward(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, ignored: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the loss; see `dice_focal`.

    Returns
    -------
    loss : Tensor of float32, shape ()
    slopes : Tensor of float32, shape (B, 2, K)
        Slopes of the Dice loss by the sums of p y and of p over an image.
    share : Tensor of float32, shape ()
        One over the number of labelled pixels.
    """
    batch, classes, height, width = logits.shape
    results = _results(logits)
    constants = _constants(weight, logits, target)
    pixels, lanes = height * width, constants["CLASSES"]
    steps = blocks(batch * pixels, constants["PIXELS"] * PROGRAMS)
    programs = blocks(pixels, constants["PIXELS"] * steps)
    partial = results[0].new_empty((batch, programs, 3 * classes + 1))
    with on_device_of(logits):
        _kernels._dice_focal_fwd_kernel[programs, batch](
            logits, target, either(weight, logits), partial,
            pixels, *_strides(logits, target), classes, ignored, gamma, steps, **constants,
        )  # fmt: skip
        _kernels._dice_focal_finish_kernel[(1,)](
            partial, *results, batch, programs, classes,
            CLASSES=lanes, PROGRAMS=NUMBERS // lanes, num_warps=WARPS,
        )  # fmt: skip
    return results


@torch.library.custom_op("affmae::dice_focal_backward", mutates_args=())
def dice_focal_backward(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    slopes: Tensor,
    share: Tensor,
    gamma: float,
    ignored: int,
) -> Tensor:
    """Compute the gradient of the logits of `dice_focal_forward`, with their strides."""
    batch, classes, height, width = logits.shape
    grad_logits = torch.empty_like(logits)
    constants = _constants(weight, logits, target, grad_logits)
    pixels = height * width
    with on_device_of(logits):
        _kernels._dice_focal_bwd_kernel[blocks(pixels, constants["PIXELS"]), batch](
            grad, logits, target, either(weight, logits), slopes, share, grad_logits,
            pixels, *_strides(logits, target, grad_logits), classes, ignored, gamma, **constants,
        )  # fmt: skip
    return grad_logits


def _results(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    loss = logits.new_empty((), dtype=torch.float32)
    return loss, loss.new_empty((len(logits), 2, logits.shape[1])), torch.empty_like(loss)


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    """Return the length of a row, and all strides."""
    return tensors[0].shape[3], *(stride for t in tensors for stride in t.stride())


def _constants(weight: Tensor | None, *tensors: Tensor) -> dict[str, Any]:
    _, classes, _, width = tensors[0].shape
    lanes = next_power_of_2(classes)
    return {
        "FLAT": all(t.stride(-2) == width * t.stride(-1) for t in tensors),
        "WEIGHTED": weight is not None,
        "CLASSES": lanes,
        "PIXELS": max(NUMBERS // lanes, FEWEST_PIXELS),
        "num_warps": WARPS,
    }


@dice_focal_forward.register_fake
def _(
    logits: Tensor, _target: Tensor, _weight: Tensor | None, _gamma: float, _ignored: int
) -> tuple[Tensor, Tensor, Tensor]:
    return _results(logits)


@dice_focal_backward.register_fake
def _(_grad: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.gamma, ctx.ignored = inputs
    _, slopes, share = output
    ctx.mark_non_differentiable(slopes, share)
    # Without this, PyTorch would fill tensors of zeros for the slopes, which have no gradient.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, slopes, share)


def _differentiate(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    grad_logits = dice_focal_backward(grad, *ctx.saved_tensors, ctx.gamma, ctx.ignored)
    return grad_logits, *[None] * 4


dice_focal_forward.register_autograd(_differentiate, setup_context=_save)
