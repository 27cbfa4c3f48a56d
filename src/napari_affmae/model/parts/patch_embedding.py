"""From pixels to tokens, without a look at hidden patches."""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from affmae_kernels import hide, masked_convolution
from napari_affmae.model.parts.layers import Norm, recompute
from napari_affmae.model.tokens.patches import take_tokens


class PatchEmbedding(nn.Module):
    """Strided convolutions down to one token a patch (AFFMAE, section 3).

    Hidden patches are zeroed in the image and again after every convolution,
    so that nothing of them reaches a visible token.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    width : int
        Channels C of a token; the convolutions before the last have half of it.
    patch_size : int
        Side of a patch in pixels, a power of two.
    """

    def __init__(self, in_channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        steps = int(math.log2(patch_size))
        widths = [in_channels, *[width // 2] * (steps - 1), width]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(after) for after in widths[1:-1])
        self.norm = Norm(width)

    def forward(self, images: Tensor, canvas: tuple[int, int], ids_keep: Tensor | None) -> Tensor:
        """Embed the visible patches.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W), padded to whole patches.
        canvas : tuple[int, int]
            Rows and columns of patches.
        ids_keep : Tensor or None
            (B, N) int64, the visible patches; None: all, in row-major order.

        Returns
        -------
        Tensor
            (B, N, width), in the order of `ids_keep`.
        """
        visible = None
        if ids_keep is not None:
            flat = images.new_zeros(len(images), canvas[0] * canvas[1])
            visible = flat.scatter_(1, ids_keep, 1.0).view(-1, 1, *canvas)
        weights = [*self.convolutions.parameters(), *self.norms.parameters()]
        tokens = recompute(lambda *x: _convolve(visible, *x), images, *weights).flatten(2).mT
        return self.norm(tokens if ids_keep is None else take_tokens(tokens, ids_keep))


def _convolve(visible: Tensor | None, images: Tensor, *weights: Tensor) -> Tensor:
    """Apply convolutions, with a norm and GELU between them.

    Parameters
    ----------
    visible : Tensor or None
        (B, 1, rows, columns), 1 at visible patches; None: all.
    images : Tensor
        (B, C, H, W).
    *weights : Tensor
        Weight and bias of each convolution, then of each norm.
    """
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    last = len(pairs) // 2
    x = hide(images, visible)
    for (weight, bias), norm in zip(pairs[:last], pairs[last + 1 :], strict=True):
        x = masked_convolution(x, visible, weight, bias, *norm)
    # Tokens are taken from visible patches alone, so these need not be hidden again.
    return F.conv2d(x, *pairs[last], stride=2, padding=1)
