"""The definition, in plain PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_convolution_reference(
    x: Tensor,
    visible: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    """See `affmae_kernels.masked_convolution`."""
    x = x.contiguous(memory_format=torch.channels_last)
    if x.is_cuda:
        # With one channel, "contiguous" leaves strides that convolutions take for
        # channels first; then every norm reads and writes across the memory.
        x = x.clone(memory_format=torch.channels_last)
    x = hide(F.conv2d(x, weight, bias, stride=2, padding=1), visible)
    normed = F.layer_norm(x.permute(0, 2, 3, 1), norm_weight.shape, norm_weight, norm_bias)
    return F.gelu(normed).permute(0, 3, 1, 2)


def hide(x: Tensor, visible: Tensor | None) -> Tensor:
    """Zero hidden patches of (B, C, H, W) at its resolution; see `masked_convolution`."""
    if visible is None:
        return x
    scale = x.shape[-1] // visible.shape[-1]
    return x * visible.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
