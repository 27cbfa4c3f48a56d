"""What a run will take, measured before it starts."""

import pytest
import torch

from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.engine import describe_plan, measure_plan
from napari_affmae.engine.events import MicroBatchHalved, PlanMeasured, PlanProgress, RunStarted
from napari_affmae.errors import DeviceUnavailableError, OutOfMemoryError
from napari_affmae.model import AFFMAE

PLAN = PlanMeasured(
    device="NVIDIA RTX 4090, 24 GB",
    precision="bf16",
    backend="Triton kernels",
    parameters=9_000_000,
    batch=16,
    micro_batch=16,
    seconds_per_step=0.213,
    memory=3_300_000_000,
    memory_available=24 * 2**30,
    total_seconds=213.0,
    total_steps=1000,
)


def test_a_plan_is_that_of_the_run(pretrain_config, pretrained):
    *progress, plan = measure_plan(pretrain_config)
    started = next(event for event in pretrained[1] if isinstance(event, RunStarted))
    for name in ("device", "precision", "backend", "parameters", "batch", "micro_batch"):
        assert getattr(plan, name) == getattr(started, name)
    assert progress == [PlanProgress(1, 3), PlanProgress(2, 3), PlanProgress(3, 3)]
    assert plan.total_steps == 4
    assert plan.total_seconds == pytest.approx(4 * plan.seconds_per_step)
    assert plan.seconds_per_step > 0
    # How much exactly depends on what earlier tests have left to be used again.
    assert 0 < plan.memory < plan.memory_available


def test_a_run_by_time_gets_its_steps(pretrain_config):
    config = pretrain_config.model_copy(update={"steps": None, "minutes": 30.0})
    plan = list(measure_plan(config))[-1]
    assert plan.total_seconds == 1800
    assert plan.total_steps == pytest.approx(1800 / plan.seconds_per_step, abs=1)


def test_a_slow_step_is_timed_once(pretrain_config, monkeypatch):
    monkeypatch.setattr("napari_affmae.engine.training.planning._SLOW_SECONDS", 0.0)
    *progress, _ = measure_plan(pretrain_config)
    assert progress == [PlanProgress(1, 2), PlanProgress(2, 2)]


def test_fine_tuning_with_classes_channels_and_a_pretrained_network(finetune_config, pretrained):
    colour = finetune_config.model_copy(update={"in_channels": 3})
    assert isinstance(list(measure_plan(colour, classes=5))[-1], PlanMeasured)
    plan = list(measure_plan(finetune_config, classes=4, pretrained=pretrained[0]))[-1]
    assert (plan.batch, plan.total_steps) == (2, 4)


def test_closing_cancels(pretrain_config):
    events = measure_plan(pretrain_config)
    assert next(events) == PlanProgress(1, 3)
    events.close()
    with pytest.raises(StopIteration):
        next(events)


@pytest.fixture
def hungry(monkeypatch):
    """Networks that run out of memory above a number of images."""

    def build(limit):
        forward = AFFMAE.forward

        def limited(self, images, *ids):
            if len(images) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(self, images, *ids)

        monkeypatch.setattr(AFFMAE, "forward", limited)

    return build


def test_memory_that_runs_out_halves_as_in_a_run(pretrain_config, hungry):
    hungry(1)
    events = list(measure_plan(pretrain_config))
    assert events[0] == MicroBatchHalved(1, 1, 2)
    assert (events[-1].batch, events[-1].micro_batch) == (2, 1)


def test_what_never_fits_is_an_error(pretrain_config, hungry):
    hungry(0)
    with pytest.raises(OutOfMemoryError, match="smaller crop"):
        list(measure_plan(pretrain_config))


def test_a_device_that_is_not_there():
    with pytest.raises(DeviceUnavailableError):
        next(measure_plan(PretrainConfig(steps=1, device="cuda:63")))


def test_words():
    assert describe_plan(PLAN) == (
        "NVIDIA RTX 4090, 24 GB, bf16, Triton kernels: 0.21 s a step, 3.1 GB of 24 GB, "
        "1,000 steps (16,000 crops) in about 4 min"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"micro_batch": 4}, "0.21 s a step (of 4 parts), 3.1 GB"),
        ({"seconds_per_step": 2.04}, ": 2.0 s a step,"),
        ({"seconds_per_step": 31.2}, ": 31 s a step,"),
        ({"memory": None, "memory_available": None}, "a step, 1,000 steps ("),
        ({"memory": 200_000_000}, "0.19 GB of 24 GB"),
        ({"advice": "too few crops"}, "in about 4 min. Too few crops"),
    ],
)
def test_words_of_other_plans(changes, words):
    assert words in describe_plan(PlanMeasured(**{**vars(PLAN), **changes}))


def test_settings_with_classes_need_no_number():
    config = FinetuneConfig(
        crop=64,
        batch=1,
        steps=1,
        device="cpu",
        classes=[{"value": value, "name": f"{value}", "color": "#ff0000"} for value in (3, 300, 9)],
    )
    assert isinstance(list(measure_plan(config))[-1], PlanMeasured)
