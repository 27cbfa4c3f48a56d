"""The definition, in plain PyTorch."""

import torch
from torch import Tensor

from affmae_kernels._hash import hashed, seed_of, uniform

# Lattice points of a row are numbered from a multiple of it.
LATTICE = 2**16


def mask_noise_reference(keys: Tensor, canvas: tuple[int, int], cells: Tensor | None) -> Tensor:
    """See `affmae_kernels.mask_noise`; without cells the noise is uniform."""
    seed = seed_of(keys)[:, None, None]
    if cells is None:
        patch = torch.arange(canvas[0] * canvas[1], device=keys.device).view(canvas)
        return uniform(hashed(patch, seed))
    return _perlin(seed, canvas, cells.clamp(1, min(canvas)))


def _perlin(seed: Tensor, canvas: tuple[int, int], cells: Tensor) -> Tensor:
    # As many lattice points as the finest noise has: shapes may not depend on the cells.
    line = torch.arange(min(canvas) + 1, device=seed.device)
    angles = 2 * torch.pi * uniform(hashed(line[:, None] * LATTICE + line, seed))
    gradient_y, gradient_x = angles.sin(), angles.cos()
    row, y = _cells_and_offsets(canvas[0], cells)
    column, x = _cells_and_offsets(canvas[1], cells)
    image = torch.arange(len(cells), device=seed.device)[:, None, None]
    y, x = y[:, :, None], x[:, None, :]

    def corner(down: int, right: int) -> Tensor:
        """Dot products of a corner's gradients with the vectors from it."""
        lattice = (image, (row + down)[:, :, None], (column + right)[:, None, :])
        return gradient_y[lattice] * (y - down) + gradient_x[lattice] * (x - right)

    fade_y, fade_x = _fade(y), _fade(x)
    top = torch.lerp(corner(0, 0), corner(0, 1), fade_x)
    bottom = torch.lerp(corner(1, 0), corner(1, 1), fade_x)
    return torch.lerp(top, bottom, fade_y)


def _cells_and_offsets(patches: int, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Locate patch centres on one side: cells and offsets in them, (B, patches)."""
    # Doubled integers, because a rounding error would put a centre into the wrong cell.
    doubled = (2 * torch.arange(patches, device=cells.device) + 1) * cells[:, None]
    cell = doubled // (2 * patches)
    return cell, (doubled - cell * 2 * patches) / (2 * patches)


def _fade(t: Tensor) -> Tensor:
    """Ease from 0 to 1 with vanishing first and second derivatives at both ends."""
    return t**3 * (t * (6 * t - 15) + 10)
