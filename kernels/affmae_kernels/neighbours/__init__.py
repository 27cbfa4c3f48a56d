"""Nearest tokens and clusters on the token canvas."""

from affmae_kernels.neighbours.indexing import TokenSearch, index_later, index_tokens
from affmae_kernels.neighbours.neighbourhood import (
    Neighbourhood,
    find_neighbourhood,
    relative_geometry,
)
from affmae_kernels.neighbours.token_index import TokenIndex

__all__ = [
    "Neighbourhood",
    "TokenIndex",
    "TokenSearch",
    "find_neighbourhood",
    "index_later",
    "index_tokens",
    "relative_geometry",
]
