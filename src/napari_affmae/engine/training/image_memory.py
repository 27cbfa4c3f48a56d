"""How much of the device's memory decoded images may take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from napari_affmae.engine.compute.device import DevicePlan

# The largest share of the free memory. A resumed run takes as much as it had before, unless that
# would leave too little for the network.
_MOST = 0.6


@dataclass(frozen=True)
class PoolPlan:
    """Where decoded images lie, and how many bytes they may take there."""

    device: torch.device
    capacity: int


def plan_pool(plan: DevicePlan, share: float, stored: Mapping[str, Any] | None) -> PoolPlan:
    """Settle on the memory of the pool.

    Which images a run sees when depends on it, so a resumed run takes what it was
    started with, if that is free.

    Parameters
    ----------
    plan : DevicePlan
        Where the run computes.
    share : float
        Of the free memory.
    stored : Mapping[str, Any] or None
        Record of the run that is resumed.
    """
    free = plan.free_memory
    before = None if stored is None else stored.get("pool")
    if before is not None and before <= _MOST * free:
        return PoolPlan(plan.device, before)
    return PoolPlan(plan.device, int(share * free))
