"""Plain filters that tell pixels apart where a patch is too coarse."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)  # pixels
PER_SCALE = 5  # smoothed, gradient, two curvatures, deviation
REACH = 3.0  # of a Gaussian, in standard deviations


def local_channels(in_channels: int) -> int:
    """Count the features that `local_features` gives for images of `in_channels`."""
    return in_channels * (1 + PER_SCALE * len(SCALES))


def local_features(images: Tensor) -> Tensor:
    """Describe every pixel by smoothed intensity, edges, ridges and texture.

    At each scale s: the Gaussian-smoothed intensity, the magnitude of its
    gradient times s, the two eigenvalues of its Hessian times s squared (the
    larger first), and the standard deviation around the pixel. Before them the
    intensity as it is. Edges are mirrored.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W) float, at least 64 px a side.

    Returns
    -------
    Tensor
        (B, F, H, W) float32, F as `local_channels` says.
    """
    # In 16 bits the differences of smoothed values would be rounding errors.
    with torch.autocast(images.device.type, enabled=False):
        image = images.float()
        features = [image]
        for scale in SCALES:
            smooth = gaussian_blur(image, scale)
            dy, dx = _gradient(smooth)
            (dyy, dyx), (_, dxx) = _gradient(dy), _gradient(dx)
            middle = (dyy + dxx) / 2
            spread = (((dyy - dxx) / 2) ** 2 + dyx**2).sqrt()
            variance = gaussian_blur(image**2, scale) - smooth**2
            features += [
                smooth,
                scale * (dy**2 + dx**2).sqrt(),
                scale**2 * (middle + spread),
                scale**2 * (middle - spread),
                variance.clamp(min=0).sqrt(),
            ]
        return torch.cat(features, dim=1)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Smooth images (B, C, H, W), mirrored at their edges, by a Gaussian of `sigma` pixels.

    The sides must be longer than three times `sigma`; 0 leaves the images as they are.
    """
    if sigma == 0:
        return images
    reach = math.ceil(REACH * sigma)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = images.flatten(0, 1).unsqueeze(1)
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="reflect"), kernel.view(1, 1, -1, 1))
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    return flat.squeeze(1).unflatten(0, images.shape[:2])


def _gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along rows and columns, one-sided at the edges."""
    dy, dx = torch.gradient(images, dim=(-2, -1))
    return dy, dx
