"""What only a CUDA GPU can show."""

import pytest
import torch

from napari_affmae.config import FinetuneConfig, PretrainConfig, SegmentConfig
from napari_affmae.engine import finetune, pretrain, segment
from napari_affmae.engine.checkpoints import list_checkpoints, read_state
from napari_affmae.engine.events import (
    MicroBatchHalved,
    PlaneDone,
    RunFinished,
    RunStarted,
    StepDone,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_all_tasks_in_every_precision(tmp_path, image, labels, precision):
    shared = {"crop": 64, "batch": 4, "steps": 10, "precision": precision, "device": "cuda"}
    events = list(pretrain([image], PretrainConfig(**shared), tmp_path / "p"))
    started = next(event for event in events if isinstance(event, RunStarted))
    assert "GB" in started.device
    assert started.precision == precision
    assert len([event for event in events if isinstance(event, StepDone)]) == 10
    pairs = [(image, labels)]
    events = list(
        finetune(pairs, FinetuneConfig(**shared), tmp_path / "f", pretrained=tmp_path / "p")
    )
    assert isinstance(events[-1], RunFinished)
    config = SegmentConfig(device="cuda", precision=precision, batch=2)
    planes = [e for e in segment(image, tmp_path / "f", config) if isinstance(e, PlaneDone)]
    assert len(planes) == image.n_planes


def test_the_loss_scaler_is_resumed(tmp_path, image):
    config = PretrainConfig(crop=64, batch=4, steps=20, precision="fp16", device="cuda")
    events = pretrain([image], config, tmp_path)
    next(event for event in events if isinstance(event, StepDone) and event.step == 12)
    events.close()
    folder = tmp_path / "checkpoints"
    scaler = read_state(folder / f"step_{list_checkpoints(folder)[-1]:08d}")["scaler"]
    assert scaler["scale"] > 1
    events = list(pretrain([image], None, tmp_path, resume=True))
    assert events[-1].step == 20


def test_memory_of_the_gpu_that_is_used_up(tmp_path, image):
    """Two thirds of what the batch takes are there."""
    config = PretrainConfig(crop=256, batch=16, steps=2, precision="fp32", device="cuda")
    torch.cuda.reset_peak_memory_stats()
    list(pretrain([image], config, tmp_path / "fits"))
    peak = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(peak * 2 / 3 / total)
    try:
        events = list(pretrain([image], config, tmp_path / "tight"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    halved = [event for event in events if isinstance(event, MicroBatchHalved)]
    assert halved
    assert halved[0].micro_batch == 8
    assert len([event for event in events if isinstance(event, StepDone)]) == 2
