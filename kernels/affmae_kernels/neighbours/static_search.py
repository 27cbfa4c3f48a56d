"""Exact nearest points, by operations whose sizes follow from shapes alone.

For graphs that are exported, such as ONNX. `TokenIndex` makes lists that are as long as
the points demand, which a graph of fixed sizes cannot hold. Here every location is
compared with every point; but where the points fill the canvas, only with the 25 around
it.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# Among so many cells along each axis are the nearest points of a full grid, up to this count.
_WINDOW, _MOST_AROUND = 5, 4
# Locations that are compared with all points at once, times the points.
_MOST_DISTANCES = 2**24


@dataclass(frozen=True)
class StaticSearch:
    """Points on a canvas, prepared for nearest-neighbour queries of fixed sizes.

    Attributes
    ----------
    points : Tensor of float, shape (B, N, 2)
        Positions (x, y) in cells.
    count : int
        The largest number of neighbours that can be asked for, at most N.
    canvas : tuple of int
        Rows and columns of the canvas, cells.
    table : Tensor of int64, shape (B, rows * columns), or None
        The point in each cell, where each holds one; None where some may be empty.
    """

    points: Tensor
    count: int
    canvas: tuple[int, int]
    table: Tensor | None

    @classmethod
    def build(cls, points: Tensor, canvas: tuple[int, int], count: int, *, whole: bool) -> Self:
        """Prepare `points` for queries of up to `count` neighbours.

        Parameters
        ----------
        points : Tensor of float, shape (B, N, 2)
            Positions (x, y) in cells, within the canvas.
        canvas : tuple of int
            Rows and columns of the canvas, cells.
        count : int
            Neighbours that a query may ask for; N where there are fewer points.
        whole : bool
            Whether points are whole and distinct cells.
        """
        batch, n, _ = points.shape
        rows, columns = canvas
        table = None
        if whole and n == rows * columns and min(canvas) >= _WINDOW and count <= _MOST_AROUND:
            cells = (points[..., 1] * columns + points[..., 0]).long()
            order = torch.arange(n, device=points.device).expand(batch, n)
            table = torch.zeros_like(cells).scatter(1, cells, order)
        return cls(points, min(count, n), canvas, table)

    def nearest(self, locations: Tensor, count: int | None = None) -> Tensor:
        """Find the nearest points; see `TokenIndex.nearest`."""
        count = self.count if count is None else count
        if count > self.count:
            raise ValueError(f"the index answers up to {self.count} neighbours, not {count}")
        locations = locations.detach().float()
        if self.table is not None:
            return self._nearest_around(locations, self.table, count)
        order = torch.arange(self.points.shape[1], device=locations.device)
        points = self.points[:, None].float()
        step = max(1, _MOST_DISTANCES // (self.points.shape[0] * self.points.shape[1]))
        return torch.cat(
            [
                _least(_squared(points, part[:, :, None]), order, count)
                for part in locations.split(step, dim=1)
            ],
            dim=1,
        )

    def _nearest_around(self, locations: Tensor, table: Tensor, count: int) -> Tensor:
        """Look at the 25 cells around each location, or at the canvas's border nearest to it.

        The four nearest points of a full grid are among them. Beside the canvas they may lie
        in one column, and then two on either side of the nearest tie.
        """
        rows, columns = self.canvas
        last = locations.new_tensor([columns - _WINDOW, rows - _WINDOW])
        first = torch.minimum((locations.floor() - 2).clamp(min=0), last)
        steps = torch.arange(_WINDOW, device=locations.device)
        around = torch.stack([steps.repeat(_WINDOW), steps.repeat_interleave(_WINDOW)], dim=-1)
        cells = first[:, :, None] + around  # (B, Q, 25, 2)
        flat = (cells[..., 1] * columns + cells[..., 0]).long()
        tokens = table.gather(1, flat.flatten(1)).view(flat.shape)
        return _least(_squared(cells, locations[:, :, None]), tokens, count)


def _squared(points: Tensor, locations: Tensor) -> Tensor:
    offset = points - locations
    return offset[..., 0].square() + offset[..., 1].square()


def _least(squared: Tensor, index: Tensor, count: int) -> Tensor:
    """Take the indices of the `count` least distances; of those that tie, the lower index first.

    Not by `topk`, which says nothing of ties.
    """
    index = index.expand(squared.shape)
    found = []
    for _ in range(count):
        least = squared.amin(-1, keepdim=True)
        first = torch.where(squared == least, index, torch.iinfo(index.dtype).max)
        found.append(first.amin(-1, keepdim=True))
        squared = torch.where(index == found[-1], torch.inf, squared)
    return torch.cat(found, dim=-1)
