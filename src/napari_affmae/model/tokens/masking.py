"""Which patches pretraining hides."""

from typing import Literal

import torch
from torch import Tensor

from affmae_kernels import ascending, mask_noise

PERLIN_CELLS = (8, 16, 32, 64)
_MOST_KEY = 2**63 - 1


def draw_keys(
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw what the masks of a batch follow from.

    Parameters
    ----------
    batch : int
        Number of images B.
    generator : torch.Generator, optional
        Random numbers; the device's default generator if left out.
    device : torch.device or str, optional
        Where the keys are to be; that of the generator, or the CPU, if left out.

    Returns
    -------
    Tensor of int64, shape (B,)
    """
    if generator is None:
        return torch.randint(_MOST_KEY, (batch,), device=device)
    keys = torch.randint(_MOST_KEY, (batch,), generator=generator, device=generator.device)
    return keys if device is None else keys.to(device)


def draw_masks(
    keys: Tensor,
    canvas: tuple[int, int],
    mask_ratio: float = 0.5,
    kind: Literal["perlin", "uniform"] = "perlin",
    cells: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose visible and hidden patches, each image its own.

    Patches are ordered by a noise value; the lowest ``int(L * (1 - mask_ratio))``
    stay visible. Perlin noise hides blobs. Nothing waits for a GPU: a call can be
    captured.

    Parameters
    ----------
    keys : Tensor of int64, shape (B,)
        See `draw_keys`: a mask follows from its image's key alone.
    canvas : tuple[int, int]
        Rows and columns of patches.
    mask_ratio : float
        Share of patches to hide, above 0 and below 1.
    kind : {"perlin", "uniform"}
        Noise that orders the patches.
    cells : Tensor of int32 or int64, shape (B,), optional
        Cells of each image's Perlin noise on a side: the fewer, the larger its
        blobs. If left out, `group_cells` of the batch.

    Returns
    -------
    ids_keep : Tensor
        (B, n_keep) int64 on the keys' device, row-major patch indices by
        ascending noise.
    ids_masked : Tensor
        (B, L - n_keep) int64 on the keys' device, ascending.

    Raises
    ------
    ValueError
        If the ratio leaves no patch visible or none hidden, the kind is
        unknown, or keys or cells are not as said here.
    """
    rows, columns = canvas
    patches = rows * columns
    n_keep = int(patches * (1 - mask_ratio))
    if not 0 < n_keep < patches:
        raise ValueError(
            f"mask_ratio {mask_ratio} keeps {n_keep} of {rows} x {columns} patches; "
            "it must leave at least one visible and one hidden"
        )
    if kind == "perlin" and cells is None:
        cells = group_cells(len(keys), keys.device)
    order = mask_noise(keys, canvas, kind, cells).flatten(1).argsort(dim=1, stable=True)
    # What is predicted of a patch does not depend on their order, but patches beside each
    # other sample the same tokens: those that are computed together share what they read.
    return order[:, :n_keep], ascending(order[:, n_keep:], patches)


def group_cells(batch: int, device: torch.device | str) -> Tensor:
    """Split a batch into four groups, whose Perlin noise has more and more cells on a side.

    A batch of fewer than four images has the fewest cells, so the largest blobs.

    Returns
    -------
    Tensor of int64, shape (B,)
    """
    cells = torch.full((batch,), PERLIN_CELLS[0], device=device)
    if batch >= len(PERLIN_CELLS):
        groups = cells.tensor_split(len(PERLIN_CELLS))
        for group, count in zip(groups, PERLIN_CELLS, strict=True):
            group.fill_(count)
    return cells
