"""Dropout in plain PyTorch."""

import torch
from torch import Tensor


def dropout(x: Tensor, rate: float) -> Tensor:
    """Zero elements at random and scale the others up.

    `torch.nn.Dropout` keeps the float noise on a CPU, four times as much as
    needed, and takes most of its time to draw it.

    Parameters
    ----------
    x : Tensor of float
    rate : float
        Share of elements zeroed; 0 returns `x` itself.
    """
    if rate == 0:
        return x
    if not x.is_cpu:
        return torch.native_dropout(x, rate, True)[0]
    # Each 64-bit number drawn is the noise of four elements.
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    noise = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = noise >= round(rate * 2**16) - 2**15
    return torch.where(kept, x * (1 / (1 - rate)), 0)
