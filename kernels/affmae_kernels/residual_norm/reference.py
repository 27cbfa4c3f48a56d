"""The definition, in plain PyTorch."""

from torch import Tensor
from torch.nn import functional as F

from affmae_kernels.dropout import dropout


def residual_norm_reference(
    x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, rate: float, epsilon: float
) -> Tensor:
    """See `affmae_kernels.residual_norm`."""
    if branch is not None:
        x = x + dropout(branch, rate)
    return F.layer_norm(x, weight.shape, weight, bias, epsilon)
