"""What a pretraining has added to its features, and whether it still adds to them."""

from collections.abc import Mapping

import torch

from napari_affmae.engine.store.records import ProbeGain

# Weights that are changed at random by one percent, which teaches nothing, score up to 0.017 higher
# or lower on the same crops (em-nano, two data sets; standard deviation 0.007).
_LEAST_MARGIN = 0.02
_FEWEST_SCORES = 6
_SMALL_RISE = 0.005


def gain_of(scores: Mapping[int, float]) -> ProbeGain | None:
    """Compare the last score of a run with that of what it started from.

    They count as different by more than 0.02, and by more than twice what neighbouring
    scores in the later half of the run differ by (root mean square).

    Parameters
    ----------
    scores : Mapping[int, float]
        From `Probe.score`, by step, in their order.

    Returns
    -------
    ProbeGain or None
        None before the first step, and in a run whose start was not measured.
    """
    if 0 not in scores or len(scores) == 1:
        return None
    values = torch.tensor(list(scores.values()), dtype=torch.float64)
    later = values[1:][(len(values) - 1) // 2 :]
    jitter = later.diff().square().mean().sqrt().item() if len(later) > 1 else 0.0
    margin = max(_LEAST_MARGIN, 2 * jitter)
    return ProbeGain(start=values[0].item(), end=values[-1].item(), margin=margin)


def judge_scores(scores: Mapping[int, float], start: str | None) -> str | None:
    """Say what a run has gained, and whether its scores still rise.

    Parameters
    ----------
    scores : Mapping[int, float]
        From `Probe.score`, by step, in their order.
    start : str or None
        Name of what the run started from; None for random weights.

    Returns
    -------
    str or None
        None where nothing was measured that could be compared.
    """
    gain, trend = _gain(scores, start), _trend(list(scores.values()))
    if trend is None:
        return gain
    return f"the probe {trend}" if gain is None else f"{gain}; it {trend}"


def _gain(scores: Mapping[int, float], start: str | None) -> str | None:
    gain = gain_of(scores)
    if gain is None:
        return None
    before = start or "random weights"
    told = f"the probe went from {gain.start:.3f} ({before}) to {gain.end:.3f}"
    if gain.is_clear:
        return f"{told}: for these labels the features have become better than those of {before}"
    return (
        f"{told}, which is not clearly better: for these labels {before} would do as well "
        f"(differences up to {gain.margin:.3f} say nothing)"
    )


def _trend(scores: list[float]) -> str | None:
    if len(scores) < _FEWEST_SCORES:
        return None
    values = torch.tensor(scores, dtype=torch.float64)
    third = len(values) // 3
    before, after = values[-2 * third : -third], values[-third:]
    rise = (after.mean() - before.mean()).item()
    # Twice the standard error of the difference, from the spread between neighbours.
    error = 2 * (values.diff().square().mean() / third).sqrt().item()
    if rise > max(_SMALL_RISE, error):
        return "still rises: longer pretraining is likely to help"
    return "no longer rises clearly: longer pretraining would help these labels little"
