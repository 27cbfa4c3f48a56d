"""Balanced clusters of neighbouring tokens, by a space-filling order."""

import math

import torch
from torch import Tensor


def cluster_order(pos: Tensor, canvas: tuple[int, int], cluster_size: int) -> Tensor:
    """Order tokens so that runs of `cluster_size` are compact clusters.

    The canvas is cut into boxes, one a cluster if tokens were spread evenly;
    a snake runs through the boxes, and inside a box tokens are ordered by how
    far they have come from the previous box's centre to the next one's
    (AutoFocusFormer, arXiv 2304.12406, section 3).

    Parameters
    ----------
    pos : Tensor
        (B, N, 2) float, (x, y) in cells.
    canvas : tuple[int, int]
        Rows and columns of the canvas.
    cluster_size : int
        Tokens in a cluster.

    Returns
    -------
    Tensor
        (B, N) int64, indices into the tokens.
    """
    batch, tokens, _ = pos.shape
    rows, columns = canvas
    clusters = -(-tokens // cluster_size)
    side = math.sqrt(rows * columns / clusters)
    boxes_y, boxes_x = max(1, round(rows / side)), max(1, round(columns / side))
    if boxes_x * boxes_y == 1:
        return torch.arange(tokens, device=pos.device).expand(batch, tokens)
    # float64, so that tokens which lie symmetrically tie exactly once rounded.
    pos = pos.double()
    # Numbers, not a tensor of them: copying one to a GPU cannot be captured.
    width, height = columns / boxes_x, rows / boxes_y
    column, row = (pos[..., 0] / width).floor().long(), (pos[..., 1] / height).floor().long()
    rank = row * boxes_x + torch.where(row % 2 == 0, column, boxes_x - 1 - column)
    stop_x, stop_y = _snake(boxes_x, boxes_y, pos.device).to(pos).unbind(-1)
    stops = torch.stack(
        [stop_x * width + width / 2 - 0.5, stop_y * height + height / 2 - 0.5], dim=-1
    )
    stops = torch.cat([2 * stops[:1] - stops[1:2], stops, 2 * stops[-1:] - stops[-2:-1]])
    from_previous = (pos - stops[rank]).square().sum(-1)
    to_next = (pos - stops[rank + 2]).square().sum(-1)
    progress = (from_previous / (to_next + 1e-5) * 1e4).round().long()
    # One integer key: the box first, then the way along the snake.
    key = (rank << 44) + progress
    return key.sort(dim=1, stable=True).indices


def _snake(boxes_x: int, boxes_y: int, device: torch.device) -> Tensor:
    """List boxes (x, y) row by row, every second row from right to left."""
    row = torch.arange(boxes_y, device=device).repeat_interleave(boxes_x)
    column = torch.arange(boxes_x, device=device).repeat(boxes_y)
    return torch.stack([torch.where(row % 2 == 0, column, boxes_x - 1 - column), row], dim=-1)
