"""Which learning rate each step of a run has."""

import math


def learning_rate(progress: float, peak: float, final: float, warmup: float) -> float:
    """Warm up linearly, then fall along a cosine.

    Parameters
    ----------
    progress : float
        Share of the run that is over, 0 to 1.
    peak : float
        Rate at the end of the warm-up.
    final : float
        Rate where `progress` is 0 or 1.
    warmup : float
        Share of the run in which the rate rises, 0 to below 1.

    Returns
    -------
    float
        Learning rate.
    """
    if progress < warmup:
        return final + (peak - final) * progress / warmup
    falling = (progress - warmup) / (1 - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * falling))
