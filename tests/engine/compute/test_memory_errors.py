"""Wherever memory runs out in a run, it ends with the product's own error."""

from collections.abc import Generator

import pytest
import torch

from napari_affmae.engine import pretrain
from napari_affmae.engine.compute.device import telling_of_memory
from napari_affmae.engine.training import pretraining
from napari_affmae.errors import OutOfMemoryError


@telling_of_memory
def run(error: Exception | None) -> Generator[int, None, str]:
    yield 1
    if error is not None:
        raise error
    return "done"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7.45 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=repr,
)
def test_a_lack_of_memory_is_told(error: Exception) -> None:
    with pytest.raises(OutOfMemoryError, match=r"not enough.*Use a smaller crop"):
        list(run(error))


def test_nothing_else_is_changed() -> None:
    with pytest.raises(RuntimeError, match="another"):
        list(run(RuntimeError("another")))
    events = run(None)
    assert next(events) == 1
    with pytest.raises(StopIteration) as stopped:
        next(events)
    assert stopped.value.value == "done"


def test_a_run_whose_preview_does_not_fit(tmp_path, image, pretrain_config, monkeypatch):
    def too_large(*_, **__):
        return torch.empty(2**62, dtype=torch.uint8)

    monkeypatch.setattr(pretraining.PretrainCrops, "fixed", too_large)
    with pytest.raises(OutOfMemoryError, match="smaller crop"):
        list(pretrain([image], pretrain_config, tmp_path))
