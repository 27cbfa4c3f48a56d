"""Images to patches and back.

A patch is flattened in the order row, column, channel; patches stand in
row-major order of the token canvas.
"""

import torch.nn.functional as F
from torch import Tensor


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
