"""How much of the device's memory decoded images may take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from napari_affmae.engine.compute.device import DevicePlan
from napari_affmae.engine.compute.distributed import Team

# The largest share of the free memory. A resumed run takes as much as it had before, unless that
# would leave too little for the network.
_MOST = 0.6


@dataclass(frozen=True)
class PoolPlan:
    """Where decoded images lie, and how many bytes they may take there."""

    device: torch.device
    capacity: int


def plan_pool(
    plan: DevicePlan, share: float, stored: Mapping[str, Any] | None, team: Team | None = None
) -> PoolPlan:
    """Settle on the memory of the pool.

    Which images a run sees when depends on it, so a resumed run takes what it was
    started with, if that is free, and processes that train together take the same.

    Parameters
    ----------
    plan : DevicePlan
        Where the run computes.
    share : float
        Of the free memory.
    stored : Mapping[str, Any] or None
        Record of the run that is resumed.
    team : Team, optional
        The processes that train together; this one alone by default.
    """
    team = team or Team()
    free = plan.free_memory // team.beside(plan.device)
    before = None if stored is None else stored.get("pool")
    if before is None or before > _MOST * free:
        before = int(share * free)
    return PoolPlan(plan.device, team.least(before))
