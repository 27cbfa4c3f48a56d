"""The order of a canvas's cells."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class CellOrder:
    """How the cells of a canvas follow each other.

    Attributes
    ----------
    ranks : Tensor of int32, shape (cells,)
        The rank of each cell, row-major; cells that tie have the same.
    places : Tensor of int32, shape (cells,)
        The place of each cell among all cells; those that tie are in row-major order.
    ranks_by_place : Tensor of int32, shape (cells,)
        The ranks, ascending.
    most_tied : int
        Number of cells of the largest tie.
    """

    ranks: Tensor
    places: Tensor
    ranks_by_place: Tensor
    most_tied: int

    @classmethod
    def of(cls, ranks: Tensor, device: torch.device) -> Self:
        """Prepare `ranks` (on the CPU, integers from 0) for use on a device."""
        ordered, cells = ranks.sort(stable=True)
        places = torch.empty_like(cells)
        places[cells] = torch.arange(len(cells))
        return cls(
            ranks.int().to(device),
            places.int().to(device),
            ordered.int().to(device),
            int(ranks.bincount().max()),
        )
