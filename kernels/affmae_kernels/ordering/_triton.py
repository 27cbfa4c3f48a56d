"""Orders on Triton kernels: launchers."""

import torch
from torch import Tensor

from affmae_kernels._launch import blocks, on_device_of
from affmae_kernels.ordering import _kernels
from affmae_kernels.ordering.cell_order import CellOrder

BLOCK = 128
# The number of places that a program lists at once, and its warps.
LISTED, LIST_WARPS = 4096, 16


def order_tokens_triton(pos: Tensor, columns: int, order: CellOrder) -> Tensor:
    """See `affmae_kernels.order_tokens`."""
    ordered: Tensor = order_by_place(
        pos.detach().float().contiguous(),
        order.places,
        order.ranks_by_place,
        columns,
        order.most_tied,
    )
    return ordered


@torch.library.custom_op("affmae::order_by_place", mutates_args=())
def order_by_place(
    pos: Tensor, places: Tensor, ranks_by_place: Tensor, columns: int, most_tied: int
) -> Tensor:
    """Order tokens by the places of their cells; see `order_tokens` and `CellOrder`."""
    batch, count, _ = pos.shape
    cells = len(places)
    table = pos.new_full((batch, cells), -1, dtype=torch.int32)
    found, at = (pos.new_empty((batch, count), dtype=torch.int32) for _ in range(2))
    order = pos.new_empty((batch, count), dtype=torch.int64)
    grid = (blocks(count, BLOCK), batch)
    with on_device_of(pos):
        _kernels._mark_cells_kernel[grid](pos, places, table, count, cells, columns, BLOCK=BLOCK)
        _list(table, found, at)
        _kernels._settle_ties_kernel[grid](
            found, at, ranks_by_place, order, count, most_tied - 1, BLOCK=BLOCK
        )
    return order


@torch.library.custom_op("affmae::sort_distinct", mutates_args=())
def sort_distinct(indices: Tensor, size: int) -> Tensor:
    """Sort distinct indices; see `ascending`."""
    batch, count = indices.shape
    table = indices.new_full((batch, size), -1, dtype=torch.int32)
    ordered = torch.empty_like(indices)
    with on_device_of(indices):
        _kernels._mark_indices_kernel[blocks(count, BLOCK), batch](
            indices, table, count, size, BLOCK=BLOCK
        )
        _list(table, ordered, None)
    return ordered


def _list(table: Tensor, found: Tensor, at: Tensor | None) -> None:
    batch, size = table.shape
    _kernels._list_marked_kernel[(batch,)](
        table, found, found if at is None else at, found.shape[1], size,
        PLACED=at is not None, BLOCK=LISTED, num_warps=LIST_WARPS,
    )  # fmt: skip


@order_by_place.register_fake
def _(pos: Tensor, *_: Tensor | int) -> Tensor:
    return pos.new_empty(pos.shape[:2], dtype=torch.int64)


@sort_distinct.register_fake
def _(indices: Tensor, _size: int) -> Tensor:
    return torch.empty_like(indices)
