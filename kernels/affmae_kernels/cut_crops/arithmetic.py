"""The arithmetic of crops: each function works on n crops, and n is 1 on a CPU."""

import torch
from torch import Tensor

from affmae_kernels._hash import hashed, normal, seed_of

SPACING = 32  # of the displacement's knots, pixels of the crop
RADIUS = 4  # of the blur, pixels
NOT_LABELLED = 255
# A blur by less changes no pixel: the weights of its neighbours are 0 in float32.
_LEAST_SIGMA = 0.05


def knot_count(crop: int) -> int:
    """Count the knots on a side: one interval takes four, each further one another."""
    return max(1, -(-crop // SPACING)) + 3


def spline_basis(crop: int, device: torch.device) -> Tensor:
    """Evaluate the cubic B-splines at the pixels of a crop, (crop, K) float32."""
    pixel = torch.arange(crop, device=device)
    t = (pixel % SPACING)[:, None] / SPACING
    pieces = ((1 - t) ** 3, (3 * t - 6) * t**2 + 4, ((3 - 3 * t) * t + 3) * t + 1, t**3)
    basis = t.new_zeros(crop, knot_count(crop))
    first = (pixel // SPACING)[:, None]
    return basis.scatter_(1, first + torch.arange(4, device=device), torch.cat(pieces, 1) / 6)


def places(matrix: Tensor, shift: Tensor, knots: Tensor | None, crop: int) -> tuple[Tensor, Tensor]:
    """Locate the pixels of crops in their blocks, ``matrix @ (p + bend(p)) + shift``.

    Parameters
    ----------
    matrix, shift, knots : Tensor
        As in `CropPlan`; no displacement without knots.
    crop : int

    Returns
    -------
    row, column : Tensor of float32, shape (n, crop, crop)
    """
    p = torch.arange(crop, device=matrix.device) - (crop - 1) / 2
    down, right = p[:, None], p[None, :]
    if knots is not None:
        basis = spline_basis(crop, matrix.device)
        bend = basis @ knots @ basis.mT
        down, right = down + bend[:, 0], right + bend[:, 1]
    m, s = matrix[..., None, None], shift[..., None, None]
    return (
        m[:, 0, 0] * down + m[:, 0, 1] * right + s[:, 0],
        m[:, 1, 0] * down + m[:, 1, 1] * right + s[:, 1],
    )


def nearest(place: Tensor) -> Tensor:
    """Round places to the pixels that they lie in."""
    return torch.floor(place + 0.5)


def mirrored(place: Tensor, size: Tensor) -> Tensor:
    """Reflect whole places beyond 0 and `size` - 1 about these, as often as it takes."""
    period = (2 * (size - 1)).clamp(min=1)
    return (place - period * torch.round(place / period)).abs()


def decoded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn values of a pool into float32; those of uint16 come as int16."""
    if dtype == torch.uint16:
        values = values.int() & 0xFFFF
    return values.float()


def normalised(values: Tensor, limits: Tensor) -> Tensor:
    """Clip and scale values (n, C, h, w) as `limits` (n, C, 4) say."""
    low, high, scale, offset = limits[..., None, None].unbind(2)
    # On a CPU far faster than clamp(low, high).
    return torch.minimum(torch.maximum(values, low), high).mul_(scale).add_(offset)


def interpolated(corners: tuple[Tensor, ...], down: Tensor, right: Tensor) -> Tensor:
    """Weight four neighbours, row by row, by how far from the first each pixel lies."""
    top = torch.lerp(corners[0], corners[1], right)
    return top.lerp_(torch.lerp(corners[2], corners[3], right), down)


def with_gamma(images: Tensor, limits: Tensor, gamma: Tensor) -> Tensor:
    """Raise images (n, C, h, w) to powers (n,), within the range that their limits leave."""
    low, high, scale, offset = limits[..., None, None].unbind(2)
    ends = low * scale + offset, high * scale + offset
    least = torch.minimum(*ends)
    span = torch.maximum(*ends) - least
    # Rounding may have put an interpolated value just outside the range.
    share = ((images - least) / torch.where(span > 0, span, 1)).clamp_(0, 1)
    changed = share.pow_(gamma[:, None, None, None]).mul_(span).add_(least)
    return torch.where(span > 0, changed, images)


def with_contrast(images: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Scale images (n, C, h, w) by numbers (n,), and add others."""
    return images * contrast[:, None, None, None] + brightness[:, None, None, None]


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur images (n, C, h, w) by Gaussians of `sigma` (n,), mirrored at their edges."""
    crop = images.shape[-1]
    step = torch.arange(RADIUS + 1, device=images.device)
    spread = sigma.clamp(min=_LEAST_SIGMA)[:, None]
    weights = torch.exp(-0.5 * (step / spread) ** 2)
    weights /= 2 * weights.sum(1, keepdim=True) - 1
    around = torch.arange(-RADIUS, crop + RADIUS, device=images.device)
    around = mirrored(around, around.new_full((), crop)).long()
    for axis in (2, 3):
        wide = images.index_select(axis, around)
        images = images * weights[:, 0, None, None, None]
        for k in range(1, RADIUS + 1):
            pair = wide.narrow(axis, RADIUS - k, crop) + wide.narrow(axis, RADIUS + k, crop)
            images += pair.mul_(weights[:, k, None, None, None])
    return images


def normals(key: Tensor, channels: int, crop: int) -> Tensor:
    """Draw standard normal numbers (n, channels, crop, crop), a function of `key` (n,)."""
    seed = seed_of(key)[:, None]
    channel = torch.arange(channels, device=key.device)
    seeds = (hashed(2 * channel + k, seed)[..., None, None] for k in range(2))
    pixel = torch.arange(crop * crop, device=key.device).view(crop, crop)
    return normal(pixel, *seeds)


def classes(labels: Tensor, ignored: int) -> Tensor:
    """Turn labels of uint8 into class indices of int64; what is not labelled is `ignored`."""
    return labels.long().masked_fill_(labels == NOT_LABELLED, ignored)
