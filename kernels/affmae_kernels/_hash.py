"""Random numbers that are a function of where they are needed: hashes in plain PyTorch.

`_hash_kernels` holds the same functions for Triton kernels.
"""

import torch
from torch import Tensor

# Multipliers above 2**31 are written as negative numbers, which are the same modulo 2**32:
# so no product leaves the range of 64-bit integers.
_GOLDEN = 0x9E3779B9 - 2**32
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32
_WORD = 0xFFFFFFFF


def hashed(place: Tensor, seed: Tensor) -> Tensor:
    """Mix a place and a seed until the bits look random (C. Wellons' lowbias32).

    Parameters
    ----------
    place, seed : Tensor of int64
        Broadcast against each other; 32 bits of their values count.

    Returns
    -------
    Tensor of int64
        From 0 to below 2**32. Different places have different hashes.
    """
    h = ((place & _WORD) * _GOLDEN + seed) & _WORD
    h = ((h ^ (h >> 16)) * _FIRST) & _WORD
    h = ((h ^ (h >> 15)) * _SECOND) & _WORD
    return h ^ (h >> 16)


def seed_of(key: Tensor) -> Tensor:
    """Hash all 64 bits of a key (int64) to a seed of 32 bits."""
    return hashed(key >> 32, hashed(key, torch.zeros_like(key)))


def uniform(hashes: Tensor) -> Tensor:
    """Turn hashes into float32 numbers from 0 to below 1."""
    return (hashes >> 8).float() * 2.0**-24


def normal(place: Tensor, seed: Tensor, other: Tensor) -> Tensor:
    """Draw float32 numbers of the standard normal distribution (Box and Muller).

    Parameters
    ----------
    place, seed, other : Tensor of int64
        As for `hashed`; each of the two uniform numbers has a seed of its own.
    """
    radius = torch.sqrt(-2 * torch.log(1 - uniform(hashed(place, seed))))
    return radius * torch.cos(2 * torch.pi * uniform(hashed(place, other)))
