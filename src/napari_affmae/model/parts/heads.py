"""The heads on the decoder, which predict pixels or their classes."""

from typing import cast

import torch
from torch import Tensor, nn

from affmae_kernels import residual_norm
from napari_affmae.model.parts.layers import Linear, Norm, recomputed_linear

HEAD_NOISE = 1e-4


class Head(nn.Sequential):
    """LayerNorm and Linear.

    Parameters
    ----------
    norm : Norm
    linear : Linear
    """

    def __init__(self, norm: Norm, linear: Linear) -> None:
        super().__init__(norm, linear)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., outputs)."""
        if not x.is_cpu:
            return super().forward(x)
        # Few numbers come out of many float32 ones. GPUs keep the norm, in 16 bits.
        norm, linear = cast("tuple[Norm, Linear]", tuple(self))
        return recomputed_linear(
            lambda x, scale, shift: residual_norm(x, None, scale, shift)[0],
            [x, *norm.parameters()],
            linear,
        )


def class_head(pixel_head: nn.Linear, channels: int, num_classes: int) -> nn.Linear:
    """Build a class head whose every class starts as the pretrained pixel head.

    Weights and bias of each pixel are repeated for the classes; noise of 1e-4
    lets the classes part. Several image channels are averaged first.

    Parameters
    ----------
    pixel_head : nn.Linear
        To ``p * p * channels`` outputs, in the order (row, column, channel).
    channels : int
        Channels of the image.
    num_classes : int
        Classes of the new head.

    Returns
    -------
    nn.Linear
        To ``p * p * num_classes`` outputs, in the order (row, column, class),
        on the device and in the type of `pixel_head`.
    """
    head = type(pixel_head)(
        pixel_head.in_features,
        pixel_head.out_features // channels * num_classes,
        device=pixel_head.weight.device,
        dtype=pixel_head.weight.dtype,
    )

    def repeated(parameter: Tensor) -> Tensor:
        by_pixel = parameter.unflatten(0, (-1, channels)).mean(1)
        by_class = by_pixel.repeat_interleave(num_classes, dim=0)
        return by_class + HEAD_NOISE * torch.randn_like(by_class)

    with torch.no_grad():
        head.weight.copy_(repeated(pixel_head.weight))
        head.bias.copy_(repeated(pixel_head.bias))
    return head
