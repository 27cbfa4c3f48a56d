"""Exact nearest points on the token canvas, in constant time a query.

The canvas is divided like a quadtree, from one block down to blocks that hold
about one point. Each block keeps the points that can be among the `k` nearest
of some location inside it; a child block only looks through its parent's list.
So the whole index costs a few dozen distance evaluations a point and a query
about fifteen, whatever the number of points: nothing is quadratic in the
image's area.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

# So many cells around the canvas lie in blocks too. Locations farther out, which the decoder's
# learned offsets may reach, are compared with every point.
MARGIN = 8
_CHUNK = 8192
_INDEX = 0xFFFFFFFF


@dataclass(frozen=True)
class TokenIndex:
    """Points on a canvas, prepared for nearest-neighbour queries.

    Attributes
    ----------
    points : Tensor of float, shape (B, N, 2)
        Positions (x, y) in cells.
    count : int
        The largest number of neighbours that can be asked for, at most N.
    side : int
        Side of a block, cells.
    grid : tuple of int
        Rows and columns of blocks, the margin included.
    sizes : Tensor of int32, shape (B * rows * columns,)
        How many points can be among the `count` nearest of a location inside
        each block.
    candidates : Tensor of int64, shape (M, B * rows * columns)
        These points, in ascending order, padded with N.
    x, y : Tensor of float32, shape (M, B * rows * columns)
        The candidates' positions, infinite where padded.
    """

    points: Tensor
    count: int
    side: int
    grid: tuple[int, int]
    sizes: Tensor
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
        padded = F.pad(points.float(), (0, 0, 0, 1), value=math.inf)
        side = 2 ** math.ceil(math.log2(max(extent)))
        spacing = math.sqrt(canvas[0] * canvas[1] / n)
        grid = (1, 1)
        candidates = torch.arange(n, device=points.device).expand(batch, 1, n)
        while side > max(1, spacing):
            side //= 2
            candidates, grid = _refine(candidates, grid, side, extent, padded, count)
        # The places in the lists come first, so that each step of a search runs along the blocks.
        x, y = (t.flatten(0, 1).mT.contiguous() for t in _positions(padded, candidates))
        flat = candidates.flatten(0, 1).mT.contiguous()
        sizes = (flat < n).sum(0, dtype=torch.int32)
        return cls(points, count, side, grid, sizes, flat, x, y)

    def nearest(self, locations: Tensor, count: int | None = None) -> Tensor:
        """Find the nearest points, the nearest first; of points that tie, the lower index first.

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
        block_of = torch.floor((locations.detach() + (MARGIN + 0.5)) / self.side)
        rows, columns = self.grid
        inside = ((block_of >= 0) & (block_of < block_of.new_tensor([columns, rows]))).all(-1)
        block_of = torch.where(inside[..., None], block_of, 0).long()
        image = torch.arange(batch, device=locations.device)[:, None]
        block = ((image * rows + block_of[..., 1]) * columns + block_of[..., 0]).flatten()
        x, y = locations.detach().float().flatten(0, 1).unbind(1)
        parts = []
        # Queries with lists of like length go together, since the longest sets a part's width.
        sizes, order = self.sizes.index_select(0, block).sort()
        for part, width in zip(
            order.split(_CHUNK),
            sizes[_CHUNK - 1 :: _CHUNK].tolist() + sizes[-1:].tolist(),
            strict=False,
        ):
            of_part, x_part, y_part = (t.index_select(0, part) for t in (block, x, y))
            parts.append(self._search(of_part, x_part, y_part, count, width))
        back = torch.empty_like(order).scatter_(
            0, order, torch.arange(len(order), device=order.device)
        )
        found = torch.cat(parts, dim=1).index_select(1, back)
        found = found.view(count, batch, queries).movedim(0, -1)
        outside = torch.nonzero(~inside)
        for part in outside.split(_CHUNK // 32):
            found[part[:, 0], part[:, 1]] = self._search_all(locations, part, count)
        return found

    def _search(self, block: Tensor, x: Tensor, y: Tensor, count: int, width: int) -> Tensor:
        candidates, dx, dy = (
            t[:width].index_select(1, block) for t in (self.candidates, self.x, self.y)
        )
        squared = dx.sub_(x).square_().add_(dy.sub_(y).square_())
        best: list[Tensor] = []
        for key in _keys(squared, candidates):
            # This inserts one key into the sorted ones, for all queries at once.
            rest = key
            for place, other in enumerate(best):
                best[place], rest = torch.minimum(other, rest), torch.maximum(other, rest)
            if len(best) < count:
                best.append(rest)
        return torch.stack(best) & _INDEX

    def _search_all(self, locations: Tensor, where: Tensor, count: int) -> Tensor:
        image, query = where.unbind(1)
        offset = self.points[image].float() - locations[image, query].detach().float()[:, None]
        order = torch.arange(offset.shape[1], device=offset.device).expand(offset.shape[:2])
        keys = _keys(offset.square().sum(-1), order)
        return keys.topk(count, dim=-1, largest=False, sorted=True).values & _INDEX


def _keys(squared: Tensor, index: Tensor) -> Tensor:
    """Join distance and index to an integer that sorts by distance, and ties by index.

    Non-negative floats order like their bits, so ties are broken exactly.
    """
    return (squared.view(torch.int32).long() << 32).bitwise_or_(index)


def _positions(padded: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Look up x and y of `points` (B, ...) in `padded` (B, N + 1, 2)."""
    first = torch.arange(len(padded), device=padded.device) * padded.shape[1]
    rows = (points + first.view(-1, *(1,) * (points.ndim - 1))).flatten()
    x, y = (axis.flatten().index_select(0, rows).view(points.shape) for axis in padded.unbind(-1))
    return x, y


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
    rows, columns = (-(-size // side) for size in extent)
    row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
    parent = (row[:, None] // 2 * grid[1] + column // 2).flatten()
    inherited = candidates[:, parent]
    x, y = _positions(padded, inherited)
    centre_x = ((column + 0.5) * side - MARGIN - 0.5).repeat(rows)
    centre_y = ((row + 0.5) * side - MARGIN - 0.5).repeat_interleave(columns)
    x.sub_(centre_x[:, None]).square_()
    distance = y.sub_(centre_y[:, None]).square_().add_(x).sqrt_()
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
