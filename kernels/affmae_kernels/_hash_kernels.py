"""The functions of `_hash` for Triton kernels."""

import triton
import triton.language as tl

GOLDEN = tl.constexpr(0x9E3779B9)
_TURN = tl.constexpr(6.283185307179586)


@triton.jit
def hashed(place, seed):
    """Mix a 32-bit integer until its bits look random (C. Wellons' lowbias32)."""
    h = place.to(tl.uint32) * GOLDEN + seed.to(tl.uint32)
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15)) * 0x846CA68B
    return h ^ (h >> 16)


@triton.jit
def seed_of(key):
    """Hash all 64 bits of a key to a seed of 32 bits."""
    return hashed(key >> 32, hashed(key, key * 0))


@triton.jit
def uniform(hashes):
    """Turn hashes into numbers from 0 to below 1."""
    return (hashes >> 8).to(tl.int32).to(tl.float32) * (1.0 / 16777216)


@triton.jit
def normal(place, seed, other):
    """Draw from the standard normal distribution (Box and Muller)."""
    radius = tl.sqrt(-2.0 * tl.log(1.0 - uniform(hashed(place, seed))))
    return radius * tl.cos(uniform(hashed(place, other)) * _TURN)
