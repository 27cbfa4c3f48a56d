"""Small layers that encoder and decoder share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Linear, GELU, Linear.

    Parameters
    ----------
    width, hidden : int
        Channels outside and inside.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        out: Tensor = self.contract(F.gelu(self.expand(x)))
        return out


class DropPath(nn.Module):
    """Leave a residual branch out for a random part of the images (stochastic depth).

    Parameters
    ----------
    rate : float
        Share of images whose branch is left out; the others are scaled up.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Drop images of `branch` (B, N, C) while training."""
        if not self.training or self.rate == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.rate
        return branch * (kept.to(branch.dtype) / (1 - self.rate))


def initialise(module: nn.Module) -> None:
    """Draw a linear layer's weights from a truncated normal, std 0.02, and zero its bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
