"""Exact nearest points on the token canvas, in constant time a query.

The canvas is divided like a quadtree, from one block down to blocks of one
cell. Each block keeps the points that can be among the `k` nearest of some
location inside it; a child block only looks through its parent's list. So the
whole index costs a few dozen distance evaluations a cell and a query about
fifteen, whatever the number of points: nothing is quadratic in the image's
area.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# Cells around the canvas that have a block of their own. Locations farther out
# (the decoder's learned offsets are unbounded) are compared with every point.
MARGIN = 8
_CHUNK = 16384


@dataclass(frozen=True)
class TokenIndex:
    """Points on a canvas, prepared for nearest-neighbour queries.

    Attributes
    ----------
    points : Tensor of float, shape (B, N, 2)
        Positions (x, y) in cells.
    count : int
        The largest number of neighbours that can be asked for, at most N.
    grid : tuple of int
        Rows and columns of blocks, the margin included.
    candidates : Tensor of int64, shape (B * rows * columns, M)
        For each block the points that can be among the `count` nearest of a
        location inside it, in ascending order, padded with N.
    x, y : Tensor of float32, shape (B * rows * columns, M)
        The candidates' positions, infinite where padded.
    """

    points: Tensor
    count: int
    grid: tuple[int, int]
    candidates: Tensor
    x: Tensor
    y: Tensor

    @classmethod
    def build(cls, points: Tensor, canvas: tuple[int, int], count: int) -> Self:
        """Index `points` for queries of up to `count` neighbours.

        Parameters
        ----------
        points : Tensor of float, shape (B, N, 2)
            Positions (x, y) in cells, within the canvas.
        canvas : tuple of int
            Rows and columns of the canvas, cells.
        count : int
            Neighbours that a query may ask for; N where there are fewer points.
        """
        batch, n, _ = points.shape
        count = min(count, n)
        extent = (canvas[0] + 2 * MARGIN, canvas[1] + 2 * MARGIN)
        padded = torch.cat([points.float(), points.new_full((batch, 1, 2), math.inf).float()], 1)
        side = 2 ** math.ceil(math.log2(max(extent)))
        grid = (1, 1)
        candidates = torch.arange(n, device=points.device).expand(batch, 1, n)
        while side > 1:
            side //= 2
            candidates, grid = _refine(candidates, grid, side, extent, padded, count)
        flat = candidates.flatten(0, 1)
        rows = torch.arange(batch, device=points.device).repeat_interleave(grid[0] * grid[1])
        position = padded[rows[:, None], flat]
        x, y = (position[..., axis].contiguous() for axis in (0, 1))
        return cls(points, count, grid, flat, x, y)

    def nearest(self, locations: Tensor, count: int | None = None) -> Tensor:
        """Find the nearest points, nearest first, ties to the lower index.

        Parameters
        ----------
        locations : Tensor of float, shape (B, Q, 2)
            Where to look, (x, y) in cells; anywhere, also off the canvas.
        count : int, optional
            How many, at most `self.count`, which is the default.

        Returns
        -------
        Tensor of int64, shape (B, Q, count)
            Indices into `points`.
        """
        count = self.count if count is None else count
        if count > self.count:
            raise ValueError(f"the index answers up to {self.count} neighbours, not {count}")
        batch, queries, _ = locations.shape
        cell = torch.floor(locations + (MARGIN + 0.5))
        rows, columns = self.grid
        inside = ((cell >= 0) & (cell < cell.new_tensor([columns, rows]))).all(-1)
        cell = torch.where(inside[..., None], cell, 0).long()
        image = torch.arange(batch, device=locations.device)[:, None]
        block = ((image * rows + cell[..., 1]) * columns + cell[..., 0]).flatten()
        flat = locations.detach().float().flatten(0, 1)
        found = torch.cat(
            [
                self._search(block[start : start + _CHUNK], flat[start : start + _CHUNK], count)
                for start in range(0, batch * queries, _CHUNK)
            ]
        ).view(batch, queries, count)
        outside = torch.nonzero(~inside)
        for part in outside.split(_CHUNK // 16):
            found[part[:, 0], part[:, 1]] = self._search_all(locations, part, count)
        return found

    def _search(self, block: Tensor, location: Tensor, count: int) -> Tensor:
        dx = self.x[block] - location[:, :1]
        dy = self.y[block] - location[:, 1:]
        return _smallest(dx.square_().add_(dy.square_()), self.candidates[block], count)

    def _search_all(self, locations: Tensor, where: Tensor, count: int) -> Tensor:
        image, query = where.unbind(1)
        offset = self.points[image].float() - locations[image, query].detach().float()[:, None]
        order = torch.arange(offset.shape[1], device=offset.device).expand(offset.shape[:2])
        return _smallest(offset.square().sum(-1), order, count)


def _smallest(squared: Tensor, index: Tensor, count: int) -> Tensor:
    """Take the indices of the smallest distances, ties to the lower index.

    Non-negative floats order like their bits, so distance and index share one
    integer key and ties are broken exactly.
    """
    key = (squared.view(torch.int32).long() << 32) | index
    return key.topk(count, dim=-1, largest=False, sorted=True).values & 0xFFFFFFFF


def _refine(
    candidates: Tensor,
    grid: tuple[int, int],
    side: int,
    extent: tuple[int, int],
    padded: Tensor,
    count: int,
) -> tuple[Tensor, tuple[int, int]]:
    """Split every block in four and drop the candidates a child cannot need.

    The distance to the k-th nearest point changes by at most the distance
    moved, so what lies farther from a block's centre than its own k-th nearest
    point by more than the block's diagonal is never among the k nearest
    inside it.
    """
    device = candidates.device
    batch = candidates.shape[0]
    rows, columns = (-(-size // side) for size in extent)
    row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
    parent = (row[:, None] // 2 * grid[1] + column // 2).flatten()
    inherited = candidates[:, parent]
    image = torch.arange(batch, device=device)[:, None, None]
    position = padded[image, inherited]
    centre_x = ((column + 0.5) * side - MARGIN - 0.5).repeat(rows)
    centre_y = ((row + 0.5) * side - MARGIN - 0.5).repeat_interleave(columns)
    distance = torch.hypot(
        position[..., 0] - centre_x[:, None], position[..., 1] - centre_y[:, None]
    )
    reach = distance.topk(count, dim=-1, largest=False).values[..., -1:]
    # The last factor covers the rounding of the distances.
    keep = distance <= (reach + math.sqrt(2) * side) * (1 + 1e-5)
    return compact(inherited, keep, padded.shape[1] - 1), (rows, columns)


def compact(values: Tensor, keep: Tensor, fill: int) -> Tensor:
    """Move the kept values of each row to its front; pad with `fill`."""
    slot = keep.cumsum(-1)
    width = int(slot[..., -1].max())
    slot = torch.where(keep, slot - 1, width)
    out = values.new_full((*values.shape[:-1], width + 1), fill)
    return out.scatter_(-1, slot, values)[..., :width].contiguous()
