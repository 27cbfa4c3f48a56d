"""Triton kernels of the masked convolution: some output pixels, all channels a program.

With few input channels the taps of a pixel are gathered into a row, and the
convolution is one small matrix product in the kernel. With more, the kernel is
given the result of the convolution. Nothing but the output is stored; the backward
pass computes the rest again.
"""

import triton
import triton.language as tl

from affmae_kernels._gauss import gauss


@triton.jit
def _convolve(
    x, visible, weight, bias, image, pixel, height, width, columns, patch, channels, outputs,
    MASKED: tl.constexpr, CONVOLVED: tl.constexpr, TAPS: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Convolve some pixels (pixels x OUTPUTS) or load their convolution; add the bias, and mask.

    Also returns the taps (pixels x TAPS), or what was loaded, and the mask.
    """
    lane = tl.arange(0, OUTPUTS)
    half = width // 2
    pixels = (height // 2) * half
    real = pixel < pixels
    lane_real = lane < outputs
    if CONVOLVED:
        place = (image * pixels + pixel)[:, None] * outputs + lane[None, :]
        taps = tl.load(x + place, mask=real[:, None] & lane_real[None, :], other=0.0)
        summed = taps.to(tl.float32)
    else:
        taps, summed = _gather(
            x, weight, image, pixel, real, height, width, channels, outputs, TAPS, OUTPUTS
        )
    summed += tl.load(bias + lane, mask=lane_real, other=0.0).to(tl.float32)[None, :]
    shown = real.to(tl.float32)
    if MASKED:
        cell = pixel // half // patch * columns + pixel % half // patch
        shown = tl.load(visible + cell, mask=real, other=0.0).to(tl.float32)
    # Lanes without a channel are zero, so that sums over channels need no mask.
    return taps, tl.where(lane_real[None, :], summed * shown[:, None], 0.0), shown


@triton.jit
def _gather(
    x, weight, image, pixel, real, height, width, channels, outputs,
    TAPS: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Gather the taps of some pixels and multiply them with the weights."""
    tap, lane = tl.arange(0, TAPS), tl.arange(0, OUTPUTS)
    half = width // 2
    row = (pixel // half)[:, None] * 2 + (tap % 9 // 3)[None, :] - 1
    column = (pixel % half)[:, None] * 2 + (tap % 3)[None, :] - 1
    channel = (tap // 9)[None, :]
    inside = real[:, None] & (channel < channels) & (row >= 0) & (row < height)
    inside = inside & (column >= 0) & (column < width)
    source = ((image * channels + channel) * height + row) * width + column
    taps = tl.load(x + source, mask=inside, other=0.0).to(weight.dtype.element_ty)
    kernel = tl.load(
        weight + tap[:, None] * outputs + lane[None, :],
        mask=(lane < outputs)[None, :] & (tap < channels * 9)[:, None], other=0.0,
    )  # fmt: skip
    return taps, tl.dot(taps, kernel, input_precision="ieee")


@triton.jit
def _normalise(summed, outputs, epsilon, OUTPUTS: tl.constexpr):
    """Subtract the mean over the channels, and divide by the deviation."""
    lane_real = tl.arange(0, OUTPUTS) < outputs
    centred = summed - (tl.sum(summed, axis=1) / outputs)[:, None]
    centred = tl.where(lane_real[None, :], centred, 0.0)
    shrink = 1.0 / tl.sqrt_rn(tl.sum(centred * centred, axis=1) / outputs + epsilon)
    return centred * shrink[:, None], shrink


@triton.jit(do_not_specialize=["height", "width", "columns"])
def _masked_convolution_fwd_kernel(
    x, visible, weight, bias, norm_weight, norm_bias, out,
    height, width, columns, patch, channels, outputs, epsilon,
    MASKED: tl.constexpr, CONVOLVED: tl.constexpr, TAPS: tl.constexpr, OUTPUTS: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    lane = tl.arange(0, OUTPUTS)
    if MASKED:
        visible += image * (height // 2 // patch) * columns
    _taps, summed, _seen = _convolve(
        x, visible, weight, bias, image, pixel, height, width, columns, patch, channels, outputs,
        MASKED, CONVOLVED, TAPS, OUTPUTS,
    )  # fmt: skip
    normed, _shrink = _normalise(summed, outputs, epsilon, OUTPUTS)
    gain = tl.load(norm_weight + lane, mask=lane < outputs, other=0.0).to(tl.float32)
    shift = tl.load(norm_bias + lane, mask=lane < outputs, other=0.0).to(tl.float32)
    normed = normed * gain[None, :] + shift[None, :]
    share, _density = gauss(normed)
    pixels = (height // 2) * (width // 2)
    place = (image * pixels + pixel)[:, None] * outputs + lane[None, :]
    real = (pixel < pixels)[:, None] & (lane < outputs)[None, :]
    tl.store(out + place, (normed * share).to(out.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["height", "width", "columns", "steps"])
def _masked_convolution_bwd_kernel(
    grad, x, visible, weight, bias, norm_weight, norm_bias, grad_x, partial,
    height, width, columns, patch, channels, outputs, epsilon, steps,
    MASKED: tl.constexpr, CONVOLVED: tl.constexpr, TAPS: tl.constexpr, OUTPUTS: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """Compute a program's part of all gradients.

    `partial` gets the gradients of the taps (TAPS x outputs), then a row each for
    bias, norm weight and norm bias. If `x` is the result of the convolution, there
    are no taps, and `grad_x` gets the gradient of `x`.
    """
    image = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, OUTPUTS)
    lane_real = lane < outputs
    if MASKED:
        visible += image * (height // 2 // patch) * columns
    gain = tl.load(norm_weight + lane, mask=lane_real, other=0.0).to(tl.float32)
    shift = tl.load(norm_bias + lane, mask=lane_real, other=0.0).to(tl.float32)
    pixels = (height // 2) * (width // 2)
    d_taps = tl.zeros([TAPS, OUTPUTS], tl.float32)
    d_bias = tl.zeros([OUTPUTS], tl.float32)
    d_gain, d_shift = d_bias, d_bias
    for step in range(steps):
        pixel = (tl.program_id(0) * steps + step) * PIXELS + tl.arange(0, PIXELS)
        taps, summed, shown = _convolve(
            x, visible, weight, bias, image, pixel, height, width, columns, patch, channels,
            outputs, MASKED, CONVOLVED, TAPS, OUTPUTS,
        )  # fmt: skip
        whitened, shrink = _normalise(summed, outputs, epsilon, OUTPUTS)
        normed = whitened * gain[None, :] + shift[None, :]
        place = (image * pixels + pixel)[:, None] * outputs + lane[None, :]
        real = (pixel < pixels)[:, None] & lane_real[None, :]
        through = tl.load(grad + place, mask=real, other=0.0).to(tl.float32)
        share, density = gauss(normed)
        through *= share + normed * density
        d_gain += tl.sum(through * whitened, axis=0)
        d_shift += tl.sum(through, axis=0)
        through *= gain[None, :]
        along = tl.sum(through * whitened, axis=1) / outputs
        level = tl.sum(through, axis=1) / outputs
        through = (through - whitened * along[:, None] - level[:, None]) * shrink[:, None]
        through = tl.where(lane_real[None, :], through * shown[:, None], 0.0)
        d_bias += tl.sum(through, axis=0)
        if CONVOLVED:
            tl.store(grad_x + place, through.to(grad_x.dtype.element_ty), mask=real)
        else:
            d_taps += tl.dot(tl.trans(taps), through.to(taps.dtype), input_precision="ieee")
    program = image * tl.num_programs(0) + tl.program_id(0)
    partial += program * ((0 if CONVOLVED else TAPS) + 3) * outputs + lane
    if not CONVOLVED:
        tap = tl.arange(0, TAPS)
        tl.store(
            partial[None, :] + tap[:, None] * outputs, d_taps,
            mask=lane_real[None, :] & (tap >= 0)[:, None],
        )  # fmt: skip
        partial += TAPS * outputs
    tl.store(partial, d_bias, mask=lane_real)
    tl.store(partial + outputs, d_gain, mask=lane_real)
    tl.store(partial + 2 * outputs, d_shift, mask=lane_real)
