"""Random numbers of crops: each a pure function of the seed, the crop's number, and its use.

They come from a counter, mixed by the finaliser of splitmix64 (Steele, Lea and
Flood, OOPSLA 2014), so that those of a whole batch are computed at once, and
nothing has to be stored to go on with a run.
"""

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def words(seed: int, crops: NDArray[np.int64], count: int, use: int = 0) -> NDArray[np.uint64]:
    """Draw 64 random bits, `count` times for each crop.

    Parameters
    ----------
    seed : int
        Of the run.
    crops : ndarray, (B,), int64
        Numbers of crops, from 0.
    count : int
        How many numbers each crop gets.
    use : int
        What they are for: other uses draw other numbers.

    Returns
    -------
    ndarray, (B, count), uint64
    """
    with np.errstate(over="ignore"):
        key = _mixed(np.uint64(seed) * _STEP + np.uint64(use))
        of_crops = _mixed(key + _STEP * (crops.astype(np.uint64) + np.uint64(1)))
        places = _STEP * np.arange(1, count + 1, dtype=np.uint64)
        return _mixed(of_crops[:, None] + places)


def uniform(seed: int, crops: NDArray[np.int64], count: int, use: int = 0) -> NDArray[np.float64]:
    """Draw numbers from 0 to below 1; see `words`."""
    high_bits = words(seed, crops, count, use) >> np.uint64(11)
    return high_bits.astype(np.float64) * 2.0**-53


def _mixed(word: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return np.asarray(word ^ (word >> np.uint64(31)))
