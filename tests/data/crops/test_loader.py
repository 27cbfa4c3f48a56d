import threading
import time

import numpy as np
import pytest
import torch

from napari_affmae.data.crops.loader import iterate_batches
from napari_affmae.errors import UnreadableFileError


class Numbers:
    """Samples that hold their index, slower where it is even."""

    def sample(self, index):
        time.sleep(0.004 * (index % 2 == 0))
        return np.full((1, 2, 2), index, np.float32)


class Pairs:
    def sample(self, index):
        return np.full((1, 2, 2), index, np.float32), np.full((2, 2), index, np.int64)


class Failing:
    def sample(self, index):
        if index == 5:
            raise UnreadableFileError("plane 5 is gone")
        return np.zeros((1, 2, 2), np.float32)


def crop_threads():
    return [thread for thread in threading.enumerate() if "affmae-crops" in thread.name]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("start", [0, 7])
def test_batches_come_in_order_from_any_step(workers, start):
    batches = iterate_batches(Numbers(), 3, start, workers)
    for step in range(start, start + 4):
        batch = next(batches)
        assert batch.dtype == torch.float32
        assert batch.shape == (3, 1, 2, 2)
        assert batch[:, 0, 0, 0].tolist() == [step * 3, step * 3 + 1, step * 3 + 2]
    batches.close()


def test_tuples_are_stacked_by_part():
    batches = iterate_batches(Pairs(), 2, 1, 2)
    images, targets = next(batches)
    assert images.shape == (2, 1, 2, 2)
    assert targets.dtype == torch.int64
    assert targets[:, 0, 0].tolist() == [2, 3]
    batches.close()


def test_errors_come_when_their_batch_is_due():
    batches = iterate_batches(Failing(), 2, 0, 3)
    next(batches)
    next(batches)
    with pytest.raises(UnreadableFileError, match="plane 5"):
        next(batches)
    assert not crop_threads()


def test_closing_stops_the_threads():
    batches = iterate_batches(Numbers(), 2, 0, 3)
    next(batches)
    assert crop_threads()
    batches.close()
    assert not crop_threads()


def test_samples_are_made_ahead():
    made = []

    class Noted(Numbers):
        def sample(self, index):
            made.append(index)
            return super().sample(index)

    batches = iterate_batches(Noted(), 2, 0, 2)
    next(batches)
    deadline = time.monotonic() + 5
    while len(made) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(made) == list(range(6))
    batches.close()


@pytest.mark.parametrize("numbers", [(0, 0, 1), (1, -1, 1), (1, 0, 0)])
def test_numbers_out_of_range(numbers):
    with pytest.raises(ValueError, match="at least"):
        iterate_batches(Numbers(), *numbers)
