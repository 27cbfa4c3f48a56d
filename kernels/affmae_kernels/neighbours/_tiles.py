"""Functions that kernels on tiles of queries and on clusters of keys share."""

import triton
import triton.language as tl


@triton.jit
def relative_distance(dx, dy):
    """Compute the distance and its inverse.

    Where the distance is zero, the inverse may be any number, because it is only
    multiplied with dx, dy or the distance.
    """
    squared = dx * dx + dy * dy
    inverse = tl.rsqrt(tl.maximum(squared, 1e-12))
    return squared * inverse, inverse


@triton.jit
def load_positions(positions, tokens, real):
    """Load positions (x, y) of tokens, zero where they are not real."""
    x = tl.load(positions + 2 * tokens, mask=real, other=0.0)
    y = tl.load(positions + 2 * tokens + 1, mask=real, other=0.0)
    return x, y


@triton.jit
def load_tile_keys(ids, bits, start, length, key_count, CLUSTER: tl.constexpr, KEYS: tl.constexpr):
    """Load the keys of the next KEYS places of a tile's union, and which queries own them."""
    TOGETHER: tl.constexpr = KEYS // CLUSTER
    place = tl.arange(0, KEYS)
    slot = start + place // CLUSTER
    real = (slot < length) & (place < TOGETHER * CLUSTER)
    token = tl.load(ids + slot, mask=real, other=0) * CLUSTER + place % CLUSTER
    real = real & (token < key_count)
    return token, real, tl.where(real, tl.load(bits + slot, mask=real, other=0), 0)
