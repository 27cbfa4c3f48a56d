"""Exact nearest tokens for the Triton kernels, from a cell-to-token table."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from affmae_kernels.neighbours import _triton
from affmae_kernels.neighbours._triton import Buckets


@dataclass(frozen=True)
class TokenTable:
    """Tokens on the canvas, prepared for nearest-neighbour queries.

    Unlike `TokenIndex`, tokens must stand on distinct cells, and all sizes
    follow from shapes.

    Attributes
    ----------
    buckets : Buckets
        The token of each cell.
    count : int
        Neighbours that a sample is interpolated from, at most 4 and N.
    lists, lengths : Tensor
        For each block of cells the tokens that may be among the `count`
        nearest inside it (see `list_candidates`).
    """

    buckets: Buckets
    count: int
    lists: Tensor
    lengths: Tensor

    @classmethod
    def build(cls, points: Tensor, canvas: tuple[int, int], count: int) -> Self:
        """Index tokens at `points` (B, N, 2), whole and distinct positions in cells."""
        buckets = Buckets(points, canvas, side=1.0)
        count = min(count, points.shape[1])
        return cls(buckets, count, *_triton.list_candidates(buckets.heads, points.shape[1], count))

    @property
    def points(self) -> Tensor:
        """Positions of the tokens, (B, N, 2) float32."""
        return self.buckets.points

    def nearest(self, locations: Tensor, count: int | None = None) -> Tensor:
        """Find the nearest tokens; see `TokenIndex.nearest`."""
        count = self.count if count is None else count
        if count > self.count:
            raise ValueError(f"the index answers up to {self.count} neighbours, not {count}")
        offsets = locations.detach().float()[:, :, None]
        near = _triton.nearest_samples(
            offsets.new_zeros((*offsets.shape[:2], 2)),
            offsets,
            self.buckets.heads,
            self.points,
            self.lists,
            self.lengths,
            count,
        )
        return near[:, :, 0].long()
