"""Orders of tokens, found by where they stand instead of by sorting."""

from affmae_kernels.ordering.cell_order import CellOrder
from affmae_kernels.ordering.op import ascending, order_tokens

__all__ = ["CellOrder", "ascending", "order_tokens"]
