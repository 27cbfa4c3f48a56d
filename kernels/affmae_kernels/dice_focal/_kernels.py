"""Triton kernels of the segmentation loss: all classes of some pixels a program.

The softmax is computed again in the backward pass, so nothing of the logits'
size is stored but their gradient.

Strides from column to column are not specialised. If Triton knew that they are
one, it would give each thread eight neighbouring pixels of a class, for the widest
loads. The classes of a pixel would then lie in several threads, which would have to
add them up through shared memory.
"""

import triton
import triton.language as tl

_TINY = tl.constexpr(1e-37)  # the least argument of a logarithm


@triton.jit
def _place(pixel, width, row_stride, column_stride, FLAT: tl.constexpr):
    """Find pixels of an image in memory; FLAT: each row begins where the one before ends."""
    if FLAT:
        place = pixel * column_stride
    else:
        place = pixel // width * row_stride + pixel % width * column_stride
    return place


@triton.jit
def _classify(
    logits, target, pixel, pixels, width, class_stride, row_stride, column_stride,
    target_row_stride, target_column_stride, classes, ignored,
    FLAT: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Compute the softmax (CLASSES x pixels), and the numbers of each pixel that losses need."""
    lane = tl.arange(0, CLASSES)
    real = pixel < pixels
    place = _place(pixel, width, row_stride, column_stride, FLAT)
    # Pixels beyond the image get zeros. With minus infinity their softmax would be 0 / 0.
    x = tl.load(
        logits + lane.to(tl.int64)[:, None] * class_stride + place[None, :],
        mask=(lane < classes)[:, None] & real[None, :], other=0.0,
    ).to(tl.float32)  # fmt: skip
    x = tl.where((lane < classes)[:, None], x, float("-inf"))
    place = _place(pixel, width, target_row_stride, target_column_stride, FLAT)
    label = tl.load(target + place, mask=real, other=-1)
    known = (label >= 0) & (label < classes) & (label != ignored)
    label = tl.where(known, label, -1).to(tl.int32)
    own = lane[:, None] == label[None, :]
    x -= tl.max(x, axis=0)[None, :]
    shares = tl.exp(x)
    total = tl.sum(shares, axis=0)
    each = 1.0 / total
    # This is the sum of the other classes' shares, since one minus a share near one would lose
    # its digits.
    rest = tl.sum(tl.where(own, 0.0, shares), axis=0) * each
    log_own = tl.sum(tl.where(own, x, 0.0), axis=0) - tl.log(total)
    return shares * each[None, :], own, label, rest, log_own


@triton.jit
def _focus(weight, label, rest, gamma, WEIGHTED: tl.constexpr):
    """Compute (1 - probability of each pixel's class) ** gamma, times the weight of the class."""
    focus = tl.exp2(gamma * tl.log2(tl.maximum(rest, _TINY)))
    if WEIGHTED:
        focus *= tl.load(weight + label, mask=label >= 0, other=0.0).to(tl.float32)
    return focus


@triton.jit(do_not_specialize=["column_stride", "target_column_stride", "ignored", "steps"])
def _dice_focal_fwd_kernel(
    logits, target, weight, partial,
    pixels, width, image_stride, class_stride, row_stride, column_stride,
    target_image_stride, target_row_stride, target_column_stride,
    classes, ignored, gamma, steps,
    FLAT: tl.constexpr, WEIGHTED: tl.constexpr, CLASSES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Compute a program's part of the sums over pixels.

    `partial` gets three sums for each class: its probability over the pixels of the
    class, its probability over all labelled pixels, and the number of its pixels.
    Then comes the focal loss.
    """
    image = tl.program_id(1).to(tl.int64)
    logits += image * image_stride
    target += image * target_image_stride
    hits = tl.zeros([CLASSES, PIXELS], tl.float32)
    predicted, true = hits, hits
    focal = tl.zeros([PIXELS], tl.float32)
    for step in range(steps):
        pixel = (tl.program_id(0) * steps + step) * PIXELS + tl.arange(0, PIXELS)
        p, own, label, rest, log_own = _classify(
            logits, target, pixel, pixels, width, class_stride, row_stride, column_stride,
            target_row_stride, target_column_stride, classes, ignored, FLAT, CLASSES,
        )  # fmt: skip
        known = label >= 0
        hits += tl.where(own, p, 0.0)
        predicted += tl.where(known[None, :], p, 0.0)
        true += tl.where(own, 1.0, 0.0)
        focus = _focus(weight, label, rest, gamma, WEIGHTED)
        focal -= tl.where(known, focus * log_own, 0.0)
    partial += (image * tl.num_programs(0) + tl.program_id(0)) * (3 * classes + 1)
    lane = tl.arange(0, CLASSES)
    tl.store(partial + lane, tl.sum(hits, axis=1), mask=lane < classes)
    tl.store(partial + classes + lane, tl.sum(predicted, axis=1), mask=lane < classes)
    tl.store(partial + 2 * classes + lane, tl.sum(true, axis=1), mask=lane < classes)
    tl.store(partial + 3 * classes, tl.sum(focal))


@triton.jit(do_not_specialize=["images", "programs"])
def _dice_focal_finish_kernel(
    partial, loss, slopes, share, images, programs, classes,
    CLASSES: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Add up the programs' parts, and compute the loss and its slopes by the sums of each image."""
    lane, row = tl.arange(0, CLASSES), tl.arange(0, PROGRAMS)
    lane_real = lane < classes
    counted = lane_real & (lane > 0)
    scores = images * (classes - 1)
    dice = tl.zeros([CLASSES], tl.float32)
    labelled = dice
    focal = tl.zeros([PROGRAMS], tl.float32)
    for image in range(images):
        hits = tl.zeros([PROGRAMS, CLASSES], tl.float32)
        predicted, true = hits, hits
        for first in range(0, programs, PROGRAMS):
            row_real = first + row < programs
            real = row_real[:, None] & lane_real[None, :]
            start = (image * programs + first + row) * (3 * classes + 1)
            place = partial + start[:, None] + lane[None, :]
            hits += tl.load(place, mask=real, other=0.0)
            predicted += tl.load(place + classes, mask=real, other=0.0)
            true += tl.load(place + 2 * classes, mask=real, other=0.0)
            focal += tl.load(partial + start + 3 * classes, mask=row_real, other=0.0)
        pixels = tl.sum(true, axis=0)
        size = tl.sum(predicted, axis=0) + pixels + 1.0
        score = (2.0 * tl.sum(hits, axis=0) + 1.0) / size
        labelled += pixels
        dice += tl.where(counted, 1.0 - score, 0.0)
        by_hit = tl.where(counted, -2.0 / size / scores, 0.0)
        by_p = tl.where(counted, score / size / scores, 0.0)
        place = slopes + image * 2 * classes + lane
        tl.store(place, by_hit, mask=lane_real)
        tl.store(place + classes, by_p, mask=lane_real)
    each = 1.0 / tl.maximum(tl.sum(labelled), 1.0)
    tl.store(share, each)
    tl.store(loss, tl.sum(dice) / scores + tl.sum(focal) * each)


@triton.jit(
    do_not_specialize=["column_stride", "target_column_stride", "grad_column_stride", "ignored"]
)
def _dice_focal_bwd_kernel(
    grad, logits, target, weight, slopes, share, grad_logits,
    pixels, width, image_stride, class_stride, row_stride, column_stride,
    target_image_stride, target_row_stride, target_column_stride,
    grad_image_stride, grad_class_stride, grad_row_stride, grad_column_stride,
    classes, ignored, gamma,
    FLAT: tl.constexpr, WEIGHTED: tl.constexpr, CLASSES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, CLASSES)
    lane_real = lane < classes
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    p, own, label, rest, log_own = _classify(
        logits + image * image_stride, target + image * target_image_stride, pixel, pixels, width,
        class_stride, row_stride, column_stride, target_row_stride, target_column_stride,
        classes, ignored, FLAT, CLASSES,
    )  # fmt: skip
    slopes += image * 2 * classes + lane
    by_hit = tl.load(slopes, mask=lane_real, other=0.0)
    by_p = tl.load(slopes + classes, mask=lane_real, other=0.0)
    through = by_p[:, None] + tl.where(own, by_hit[:, None], 0.0)
    through = p * (through - tl.sum(p * through, axis=0)[None, :])
    # This is the slope of the focal loss by the logarithm of the class's own probability.
    focus = _focus(weight, label, rest, gamma, WEIGHTED)
    slope = gamma * (1.0 - rest) * log_own * focus / tl.maximum(rest, _TINY) - focus
    through += (slope * tl.load(share))[None, :] * tl.where(own, rest[None, :], -p)
    through = tl.where((label >= 0)[None, :], through * tl.load(grad), 0.0)
    place = _place(pixel, width, grad_row_stride, grad_column_stride, FLAT)
    grad_logits += image * grad_image_stride
    tl.store(
        grad_logits + lane.to(tl.int64)[:, None] * grad_class_stride + place[None, :],
        through.to(grad_logits.dtype.element_ty),
        mask=lane_real[:, None] & (pixel < pixels)[None, :],
    )
