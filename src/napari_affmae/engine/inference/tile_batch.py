"""How many tiles are predicted at once."""

from collections.abc import Callable

from napari_affmae.engine.compute.device import DevicePlan
from napari_affmae.engine.compute.memory import memory_meter

# A GPU is busy with so many pixels; more at once take memory and are no faster.
_MOST_PIXELS = 16 * 1024**2
_MOST_TILES = 128
# Of the memory that is free; the rest is for recorded passes, sums, and other programs.
_SHARE = 0.4


def most_tiles(tile: int, plan: DevicePlan) -> int:
    """Return the most tiles that are worth predicting at once.

    One on a CPU, where a tile's last bits depend on the number of tiles that are
    computed with it, and where memory cannot be measured.

    Parameters
    ----------
    tile : int
        Side of a tile, pixels.
    plan : DevicePlan
        The device.
    """
    if plan.device.type != "cuda":
        return 1
    return min(_MOST_TILES, max(1, _MOST_PIXELS // tile**2))


def tiles_that_fit(tile: int, plan: DevicePlan, predict_one: Callable[[], object]) -> int:
    """Choose how many tiles to predict at once, by what one of them takes.

    Parameters
    ----------
    tile, plan
        See `most_tiles`.
    predict_one : callable
        Predicts a single tile.

    Returns
    -------
    int
        A power of two, so that few shapes occur.
    """
    most = most_tiles(tile, plan)
    if most == 1:
        return 1
    with memory_meter(plan) as meter:
        predict_one()
        taken = meter.peak
    plan.release_memory()
    if not taken:
        return 1
    fitting = max(1, int(_SHARE * plan.free_memory) // taken)
    return 1 << (min(most, fitting).bit_length() - 1)
