"""Which patches pretraining hides."""

import math
from typing import Literal

import torch
from torch import Tensor

PERLIN_CELLS = (8, 16, 32, 64)


def draw_masks(
    batch: int,
    canvas: tuple[int, int],
    mask_ratio: float = 0.5,
    kind: Literal["perlin", "uniform"] = "perlin",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw visible and hidden patches, each image its own.

    Patches are ordered by a noise value; the lowest ``int(L * (1 - mask_ratio))``
    stay visible. Perlin noise hides blobs; the batch is split into four groups
    of blobs from large to small (fewer than four images: large ones).

    Parameters
    ----------
    batch : int
        Number of images B.
    canvas : tuple[int, int]
        Rows and columns of patches.
    mask_ratio : float
        Share of patches to hide, above 0 and below 1.
    kind : {"perlin", "uniform"}
        Noise that orders the patches.
    generator : torch.Generator, optional
        Random numbers, on the CPU; torch's default generator if left out.

    Returns
    -------
    ids_keep : Tensor
        (B, n_keep) int64 on the CPU, row-major patch indices by ascending noise.
    ids_masked : Tensor
        (B, L - n_keep) int64 on the CPU, ascending.

    Raises
    ------
    ValueError
        If the ratio leaves no patch visible or none hidden, the kind is
        unknown, or the generator is not on the CPU.
    """
    rows, columns = canvas
    patches = rows * columns
    n_keep = int(patches * (1 - mask_ratio))
    if not 0 < n_keep < patches:
        raise ValueError(
            f"mask_ratio {mask_ratio} keeps {n_keep} of {rows} x {columns} patches; "
            "it must leave at least one visible and one hidden"
        )
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(
            f"masks are drawn on the CPU, got a generator on {generator.device}; "
            "use torch.Generator()"
        )
    if kind == "perlin":
        noise = _grouped_perlin(batch, canvas, generator)
    elif kind == "uniform":
        noise = torch.rand(batch, rows, columns, generator=generator)
    else:
        raise ValueError(f"kind must be 'perlin' or 'uniform', got {kind!r}")
    order = noise.flatten(1).argsort(dim=1, stable=True)
    # What is predicted of a patch does not depend on their order, but patches beside each
    # other sample the same tokens: those that are computed together share what they read.
    return order[:, :n_keep], order[:, n_keep:].sort(dim=1).values


def perlin_noise(
    batch: int,
    canvas: tuple[int, int],
    cells: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw 2-D gradient noise, sampled at the patches' centres.

    Parameters
    ----------
    batch : int
        Number of images B.
    canvas : tuple[int, int]
        Rows and columns of patches.
    cells : int
        Noise cells on a side, stretched over the canvas; at most its shorter
        side, since finer noise would be undersampled.
    generator : torch.Generator, optional
        Random numbers, on the CPU.

    Returns
    -------
    Tensor
        (B, rows, columns) float32, zero on average.
    """
    cells = min(cells, *canvas)
    angles = 2 * math.pi * torch.rand(batch, cells + 1, cells + 1, generator=generator)
    gradient_y, gradient_x = angles.sin(), angles.cos()
    row, y = _cells_and_offsets(canvas[0], cells)
    column, x = _cells_and_offsets(canvas[1], cells)

    def corner(down: int, right: int) -> Tensor:
        """Dot products of a corner's gradients with the vectors from it."""
        lattice = (slice(None), (row + down)[:, None], (column + right)[None, :])
        return gradient_y[lattice] * (y - down)[:, None] + gradient_x[lattice] * (x - right)

    fade_y, fade_x = _fade(y)[:, None], _fade(x)
    top = torch.lerp(corner(0, 0), corner(0, 1), fade_x)
    bottom = torch.lerp(corner(1, 0), corner(1, 1), fade_x)
    return torch.lerp(top, bottom, fade_y)


def _grouped_perlin(
    batch: int, canvas: tuple[int, int], generator: torch.Generator | None
) -> Tensor:
    """Draw Perlin noise whose cells get smaller from one quarter of the batch to the next."""
    if batch < len(PERLIN_CELLS):
        return perlin_noise(batch, canvas, PERLIN_CELLS[0], generator)
    groups = torch.arange(batch).tensor_split(len(PERLIN_CELLS))
    return torch.cat(
        [
            perlin_noise(len(group), canvas, cells, generator)
            for group, cells in zip(groups, PERLIN_CELLS, strict=True)
        ]
    )


def _cells_and_offsets(patches: int, cells: int) -> tuple[Tensor, Tensor]:
    """Locate patch centres on one side of the lattice: cell index, and offset in the cell."""
    # Doubled integers, because a rounding error would put a centre into the wrong cell.
    doubled = (2 * torch.arange(patches) + 1) * cells
    cell = doubled // (2 * patches)
    return cell, (doubled - cell * 2 * patches) / (2 * patches)


def _fade(t: Tensor) -> Tensor:
    """Ease from 0 to 1 with vanishing first and second derivatives at both ends."""
    return t**3 * (t * (6 * t - 15) + 10)
