"""The definition, in plain PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def dice_focal_reference(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, ignored: int
) -> Tensor:
    """See `affmae_kernels.dice_focal`."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    known = (target != ignored).unsqueeze(1)
    labels = torch.where(known, target.unsqueeze(1), 0)
    log_p = F.log_softmax(logits, 1)
    log_own = log_p.gather(1, labels)
    # A pixel that is not labelled gets zeros for all classes, so it enters no sum.
    own = torch.zeros_like(log_p, dtype=torch.bool).scatter_(1, labels, known)
    p = torch.where(known, log_p.exp(), 0)
    hits = torch.where(own, p, 0).sum((2, 3))
    dice = 1 - (2 * hits + 1) / (p.sum((2, 3)) + own.sum((2, 3)) + 1)
    # The base stays above zero, where the slope of a root would be infinite.
    rest = (-torch.expm1(log_own)).clamp(min=torch.finfo(log_own.dtype).tiny)
    focal = -rest.pow(gamma) * log_own
    if weight is not None:
        focal = focal * weight.to(focal)[labels]
    focal = torch.where(known, focal, 0).sum() / known.sum().clamp(min=1)
    return dice[:, 1:].mean() + focal
