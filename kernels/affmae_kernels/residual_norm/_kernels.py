"""Triton kernels of layer normalisation: all channels of some rows a program.

The backward pass works out again which elements of the branch were dropped, so
no mask is stored.
"""

import triton
import triton.language as tl

from affmae_kernels.dropout._kernels import dropped


@triton.jit(do_not_specialize=["rows", "image_rows", "threshold"])
def _residual_norm_fwd_kernel(
    x, branch, weight, bias, branch_bias, factors, seed, out, total, mean, inverse,
    rows, channels, image_rows, threshold, scale, epsilon,
    BRANCH: tl.constexpr, BIASED: tl.constexpr, SCALED: tl.constexpr, DROP: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * ROWS
    row, lane = tl.arange(0, ROWS), tl.arange(0, CHANNELS)
    row_real, lane_real = first + row < rows, lane < channels
    real = row_real[:, None] & lane_real[None, :]
    # Places count from the program's first row, so that 32 bits suffice for them.
    start = first.to(tl.int64) * channels
    place = row[:, None] * channels + lane[None, :]
    value = tl.load(x + start + place, mask=real, other=0.0).to(tl.float32)
    if BRANCH:
        added = tl.load(branch + start + place, mask=real, other=0.0).to(tl.float32)
        if BIASED:
            shift = tl.load(branch_bias + lane, mask=lane_real, other=0.0).to(tl.float32)
            added += shift[None, :]
        if DROP:
            added = dropped(added, start, place, tl.load(seed), threshold, scale)
        if SCALED:
            image = (first + row) // image_rows
            added *= tl.load(factors + image, mask=row_real, other=0.0).to(tl.float32)[:, None]
        # The sum is rounded here as it is stored, so that the backward pass sees the same numbers.
        rounded = (value + added).to(total.dtype.element_ty)
        tl.store(total + start + place, rounded, mask=real)
        value = rounded.to(tl.float32)
    centre = tl.sum(value, axis=1) / channels
    value = tl.where(real, value - centre[:, None], 0.0)
    shrink = 1.0 / tl.sqrt_rn(tl.sum(value * value, axis=1) / channels + epsilon)
    gain = tl.load(weight + lane, mask=lane_real, other=0.0).to(tl.float32)
    shift = tl.load(bias + lane, mask=lane_real, other=0.0).to(tl.float32)
    normed = value * shrink[:, None] * gain[None, :] + shift[None, :]
    tl.store(out + start + place, normed.to(out.dtype.element_ty), mask=real)
    tl.store(mean + first + row, centre, mask=row_real)
    tl.store(inverse + first + row, shrink, mask=row_real)


@triton.jit(do_not_specialize=["rows", "image_rows", "threshold", "steps"])
def _residual_norm_bwd_kernel(
    grad, grad_total, total, weight, factors, seed, mean, inverse, grad_x, grad_branch, partial,
    rows, channels, image_rows, threshold, scale, steps,
    CONTINUED: tl.constexpr, BRANCH: tl.constexpr, BIASED: tl.constexpr, SCALED: tl.constexpr,
    DROP: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of both summands, and a program's part of the small gradients.

    `partial` gets those of weight and bias, and of the branch's bias if there is one.
    """
    lane = tl.arange(0, CHANNELS)
    lane_real = lane < channels
    gain = tl.load(weight + lane, mask=lane_real, other=0.0).to(tl.float32)
    d_gain = tl.zeros([CHANNELS], tl.float32)
    d_shift, d_branch_bias = d_gain, d_gain
    row = tl.arange(0, ROWS)
    place = row[:, None] * channels + lane[None, :]
    for step in range(steps):
        first = (tl.program_id(0) * steps + step) * ROWS
        row_real = first + row < rows
        real = row_real[:, None] & lane_real[None, :]
        start = first.to(tl.int64) * channels
        arriving = tl.load(grad + start + place, mask=real, other=0.0).to(tl.float32)
        value = tl.load(total + start + place, mask=real, other=0.0).to(tl.float32)
        centre = tl.load(mean + first + row, mask=row_real, other=0.0)
        shrink = tl.load(inverse + first + row, mask=row_real, other=0.0)
        normed = tl.where(real, (value - centre[:, None]) * shrink[:, None], 0.0)
        d_gain += tl.sum(arriving * normed, axis=0)
        d_shift += tl.sum(arriving, axis=0)
        through = arriving * gain[None, :]
        along = tl.sum(through * normed, axis=1) / channels
        level = tl.sum(through, axis=1) / channels
        through = (through - normed * along[:, None] - level[:, None]) * shrink[:, None]
        if CONTINUED:
            through += tl.load(grad_total + start + place, mask=real, other=0.0).to(tl.float32)
        tl.store(grad_x + start + place, through.to(grad_x.dtype.element_ty), mask=real)
        if BRANCH:
            if SCALED:
                image = (first + row) // image_rows
                factor = tl.load(factors + image, mask=row_real, other=0.0).to(tl.float32)
                through *= factor[:, None]
            if DROP:
                through = dropped(through, start, place, tl.load(seed), threshold, scale)
            tl.store(
                grad_branch + start + place, through.to(grad_branch.dtype.element_ty), mask=real
            )
            if BIASED:
                d_branch_bias += tl.sum(tl.where(real, through, 0.0), axis=0)
    partial += tl.program_id(0) * (3 if BIASED else 2) * channels + lane
    tl.store(partial, d_gain, mask=lane_real)
    tl.store(partial + channels, d_shift, mask=lane_real)
    if BIASED:
        tl.store(partial + 2 * channels, d_branch_bias, mask=lane_real)
