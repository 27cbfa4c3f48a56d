"""The definition, in plain PyTorch."""

from torch import Tensor
from torch.nn import functional as F

from affmae_kernels.dropout import dropout


def residual_norm_reference(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    branch_bias: Tensor | None,
    factors: Tensor | None,
    rate: float,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    """See `affmae_kernels.residual_norm`."""
    if branch is not None:
        if branch_bias is not None:
            branch = branch + branch_bias.to(branch.dtype)
        branch = dropout(branch, rate)
        if factors is not None:
            branch = branch * factors.to(branch.dtype).view(-1, *(1,) * (branch.ndim - 1))
        x = x + branch
    return F.layer_norm(x, weight.shape, weight, bias, epsilon), x
