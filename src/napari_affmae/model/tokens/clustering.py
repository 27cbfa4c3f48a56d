"""Balanced clusters of neighbouring tokens, by a space-filling order."""

import math
from functools import cache

import torch
from torch import Tensor

from affmae_kernels import CellOrder, order_tokens


def cluster_order(pos: Tensor, canvas: tuple[int, int], cluster_size: int) -> Tensor:
    """Order tokens so that runs of `cluster_size` are compact clusters.

    The canvas is cut into boxes, one a cluster if tokens were spread evenly;
    a snake runs through the boxes, and inside a box tokens are ordered by how
    far they have come from the previous box's centre to the next one's
    (AutoFocusFormer, arXiv 2304.12406, section 3).

    Parameters
    ----------
    pos : Tensor
        (B, N, 2) float, (x, y), whole cells of the canvas.
    canvas : tuple[int, int]
        Rows and columns of the canvas.
    cluster_size : int
        Tokens in a cluster.

    Returns
    -------
    Tensor
        (B, N) int64, indices into the tokens; ties keep their order.
    """
    batch, tokens, _ = pos.shape
    rows, columns = canvas
    clusters = -(-tokens // cluster_size)
    side = math.sqrt(rows * columns / clusters)
    boxes_y, boxes_x = max(1, round(rows / side)), max(1, round(columns / side))
    if boxes_x * boxes_y == 1:
        return torch.arange(tokens, device=pos.device).expand(batch, tokens)
    return order_tokens(pos, columns, _cell_order(canvas, (boxes_y, boxes_x), pos.device))


# Small tables for each size of image and stage. They are never dropped, because CUDA
# graphs that were captured go on reading them.
@cache
def _cell_order(canvas: tuple[int, int], boxes: tuple[int, int], device: torch.device) -> CellOrder:
    """Order the cells of a canvas along the snake; symmetric cells tie."""
    (rows, columns), (boxes_y, boxes_x) = canvas, boxes
    width, height = columns / boxes_x, rows / boxes_y
    cell = torch.arange(rows * columns)
    # float64, so that cells which lie symmetrically tie exactly once rounded.
    pos = torch.stack([cell % columns, cell // columns], dim=-1).double()
    column, row = (pos[..., 0] / width).floor().long(), (pos[..., 1] / height).floor().long()
    box = row * boxes_x + torch.where(row % 2 == 0, column, boxes_x - 1 - column)
    stop_x, stop_y = _snake(boxes_x, boxes_y).to(pos).unbind(-1)
    stops = torch.stack(
        [stop_x * width + width / 2 - 0.5, stop_y * height + height / 2 - 0.5], dim=-1
    )
    stops = torch.cat([2 * stops[:1] - stops[1:2], stops, 2 * stops[-1:] - stops[-2:-1]])
    from_previous = (pos - stops[box]).square().sum(-1)
    to_next = (pos - stops[box + 2]).square().sum(-1)
    progress = (from_previous / (to_next + 1e-5) * 1e4).round().long()
    # One integer key: the box first, then the way along the snake.
    _, ranks = ((box << 44) + progress).unique(return_inverse=True)
    return CellOrder.of(ranks, device)


def _snake(boxes_x: int, boxes_y: int) -> Tensor:
    """List boxes (x, y) row by row, every second row from right to left."""
    row = torch.arange(boxes_y).repeat_interleave(boxes_x)
    column = torch.arange(boxes_x).repeat(boxes_y)
    return torch.stack([torch.where(row % 2 == 0, column, boxes_x - 1 - column), row], dim=-1)
