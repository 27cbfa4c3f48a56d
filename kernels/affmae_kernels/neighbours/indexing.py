"""Which index answers questions for the nearest tokens."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels._launch import side_by_side
from affmae_kernels.neighbours.token_index import TokenIndex


class TokenSearch(Protocol):
    """Tokens prepared for nearest-neighbour queries: a `TokenIndex` or a `TokenTable`."""

    @property
    def points(self) -> Tensor:
        """Positions of the tokens, (B, N, 2)."""

    @property
    def count(self) -> int:
        """The largest number of neighbours that can be asked for, at most N."""

    def nearest(self, locations: Tensor, count: int | None = None) -> Tensor:
        """Find the tokens nearest to `locations`; see `TokenIndex.nearest`."""


def index_tokens(
    points: Tensor, canvas: tuple[int, int], count: int, backend: Backend = "auto"
) -> TokenSearch:
    """Prepare tokens for nearest-neighbour queries.

    Parameters
    ----------
    points : Tensor of float, shape (B, N, 2)
        Positions (x, y) in cells: whole numbers on the canvas, distinct.
    canvas : tuple of int
        Rows and columns of the canvas, cells.
    count : int
        Neighbours that a query may ask for; N where there are fewer points.
    backend : {"auto", "triton", "torch"}
        A `TokenTable` for Triton, a `TokenIndex` for PyTorch.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run, or not for so many neighbours.
    """
    chosen = choose_backend(backend, points.device, limit=("neighbours", count, 4))
    if chosen == "torch":
        return TokenIndex.build(points, canvas, count)
    from affmae_kernels.neighbours.token_table import TokenTable

    return TokenTable.build(points, canvas, count)


def index_each(
    sets: Sequence[Tensor], canvas: tuple[int, int], count: int, backend: Backend = "auto"
) -> Iterator[TokenSearch]:
    """Index several sets of tokens, one after the other as they are asked for.

    On a GPU all are built at once, side by side: each has little work, but long
    chains of it. See `index_tokens` for parameters and errors.
    """
    device = sets[0].device
    builders = [partial(index_tokens, points, canvas, count, backend) for points in sets]
    if choose_backend(backend, device, limit=("neighbours", count, 4)) == "torch":
        yield from (build() for build in builders)
    else:
        yield from side_by_side(device, builders)
