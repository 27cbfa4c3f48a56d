"""Images to patches and back.

A patch is flattened in the order row, column, channel; patches stand in
row-major order of the token canvas.
"""

import torch.nn.functional as F
from torch import Tensor

SMALLEST_IMAGE = 64


def check_images(images: Tensor, channels: int) -> None:
    """Refuse images that a network cannot take.

    Parameters
    ----------
    images : Tensor
        Should be (B, C, H, W), floating point, at least 64 px a side.
    channels : int
        Channels that the network was built for.

    Raises
    ------
    ValueError
        If they are anything else.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point (B, C, H, W), got {images.dtype} {tuple(images.shape)}"
        )
    if images.shape[1] != channels:
        raise ValueError(
            f"the network takes {channels} channel(s), got images of {images.shape[1]}"
        )
    if min(images.shape[-2:]) < SMALLEST_IMAGE:
        raise ValueError(
            f"images must be at least {SMALLEST_IMAGE} px a side, "
            f"got {images.shape[-2]} x {images.shape[-1]}; pad them"
        )


def pad_to_patches(images: Tensor, patch_size: int) -> Tensor:
    """Pad images with zeros on the right and bottom to whole patches.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W).
    patch_size : int
        Side of a patch, pixels.

    Returns
    -------
    Tensor
        (B, C, H', W'), both sides multiples of `patch_size`; `images` itself
        where nothing is missing.
    """
    height, width = images.shape[-2:]
    bottom, right = -height % patch_size, -width % patch_size
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into flattened patches.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W), both sides multiples of `patch_size`.
    patch_size : int
        Side of a patch, pixels.

    Returns
    -------
    Tensor
        (B, L, p * p * C) of the same type, L patches in row-major order.

    Raises
    ------
    ValueError
        If the sides are no multiples of `patch_size`.
    """
    batch, channels, height, width = images.shape
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"images of {height} x {width} pixels cannot be cut into patches of {patch_size}; "
            "pad them first (pad_to_patches)"
        )
    rows, columns = height // patch_size, width // patch_size
    grid = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(
        batch, rows * columns, patch_size * patch_size * channels
    )


def unpatchify(patches: Tensor, canvas: tuple[int, int], patch_size: int, channels: int) -> Tensor:
    """Assemble flattened patches to images; the inverse of `patchify`.

    Parameters
    ----------
    patches : Tensor
        (B, rows * columns, p * p * channels).
    canvas : tuple[int, int]
        Rows and columns of patches.
    patch_size : int
        Side of a patch, pixels.
    channels : int
        Channels of the image (or classes of logits).

    Returns
    -------
    Tensor
        (B, channels, rows * p, columns * p) of the same type.

    Raises
    ------
    ValueError
        If the patches are not that many or not that long.
    """
    rows, columns = canvas
    expected = (rows * columns, patch_size * patch_size * channels)
    if patches.shape[1:] != expected:
        raise ValueError(
            f"a canvas of {rows} x {columns} patches of {patch_size} x {patch_size} x {channels} "
            f"takes (B, {expected[0]}, {expected[1]}), got {tuple(patches.shape)}"
        )
    grid = patches.reshape(-1, rows, columns, patch_size, patch_size, channels)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(
        -1, channels, rows * patch_size, columns * patch_size
    )


def take_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Take tokens (or patches) by index, each image its own.

    Parameters
    ----------
    tokens : Tensor
        (B, L, C).
    ids : Tensor
        (B, n) int64, indices below L.

    Returns
    -------
    Tensor
        (B, n, C).
    """
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
