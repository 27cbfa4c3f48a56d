"""Triton kernels of dropout.

Whether an element is kept follows from its place and the call's seed.
"""

import triton
import triton.language as tl

_GOLDEN = tl.constexpr(0x9E3779B9)


@triton.jit
def _hashed(place, seed):
    """Mix a 32-bit integer until its bits look random (C. Wellons' lowbias32)."""
    h = place.to(tl.uint32) * _GOLDEN + seed.to(tl.uint32)
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15)) * 0x846CA68B
    return h ^ (h >> 16)


@triton.jit
def dropped(values, start, place, seed, threshold, scale):
    """Zero the values whose hash is below `threshold`, of 2**24, and scale the others.

    The place of a value is the sum of `start` and `place`, of which 32 bits count.
    """
    noise = (_hashed(place, seed + start * _GOLDEN) >> 8).to(tl.int32)
    return tl.where(noise >= threshold, values * scale, 0.0)


# The count is specialised: its being a multiple of 16 is what lets loads be wide.
@triton.jit(do_not_specialize=["threshold"])
def _relu_dropout_kernel(x, seed, out, count, threshold, scale, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    place = tl.arange(0, BLOCK)
    real = start + place < count
    value = tl.load(x + start + place, mask=real, other=0.0).to(tl.float32)
    value = tl.maximum(dropped(value, start, place, tl.load(seed), threshold, scale), 0.0)
    tl.store(out + start + place, value.to(out.dtype.element_ty), mask=real)
