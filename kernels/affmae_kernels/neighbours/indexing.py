"""The choice of the index that finds the nearest tokens."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend, is_exported
from affmae_kernels._launch import begin
from affmae_kernels.neighbours.static_search import StaticSearch
from affmae_kernels.neighbours.token_index import TokenIndex


class TokenSearch(Protocol):
    """Tokens prepared for nearest-neighbour queries: for instance a `TokenIndex`."""

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
    if is_exported():
        return StaticSearch.build(points, canvas, count, whole=True)
    if chosen == "torch":
        return TokenIndex.build(points, canvas, count)
    from affmae_kernels.neighbours.token_table import TokenTable

    return TokenTable.build(points, canvas, count)


def index_later(
    points: Tensor, canvas: tuple[int, int], count: int, backend: Backend = "auto"
) -> Callable[[], TokenSearch]:
    """Begin to index tokens; return a function that gives the index, to be called once.

    Indexing is a long chain of small kernels. While a CUDA graph is recorded, they
    run beside the work that is recorded before the function is called. Otherwise they
    run when it is called. See `index_tokens` for parameters and errors.
    """
    return begin(points.device, partial(index_tokens, points, canvas, count, backend))
