"""Small layers that encoder and decoder share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


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
        out: Tensor = recompute(lambda hidden: self.contract(F.gelu(hidden)), self.expand(x))
        return out


class Dropout(nn.Module):
    """Dropout that remembers a byte an element.

    `torch.nn.Dropout` keeps the float noise on a CPU, four times as much.

    Parameters
    ----------
    rate : float
        Share of elements zeroed in training; the others are scaled up.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of `x` while training."""
        return torch.native_dropout(x, self.rate, self.training)[0] if self.training else x


class DropPath(nn.Module):
    """Leave a residual branch out for a random part of the images (stochastic depth).

    Parameters
    ----------
    rate : float
        Share of images whose branch is left out; the others are scaled up.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        # A tensor, so that blocks of all rates share one compiled program.
        self.register_buffer("rate", torch.tensor(rate), persistent=False)
        self.rate: Tensor

    def forward(self, branch: Tensor) -> Tensor:
        """Drop images of `branch` (B, N, C) while training."""
        if not self.training:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.rate
        return branch * (kept / (1 - self.rate)).to(branch.dtype)


def recompute(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply `function`, and again in the backward pass instead of keeping what it computes.

    For cheap functions of large tensors: memory is what limits the image size.
    """
    if not torch.is_grad_enabled():
        return function(x)
    out: Tensor = checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)
    return out


def initialise(module: nn.Module) -> None:
    """Draw a linear layer's weights from a truncated normal, std 0.02, and zero its bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
