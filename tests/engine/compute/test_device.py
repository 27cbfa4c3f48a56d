import weakref

import pytest
import torch

from napari_affmae.engine.compute.device import (
    DevicePlan,
    is_out_of_memory,
    memory_errors,
    plan_device,
)
from napari_affmae.engine.training.steps.batch import BatchPlan, plan_batch
from napari_affmae.errors import DeviceUnavailableError, OutOfMemoryError

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_the_cpu_in_words():
    plan = plan_device("cpu")
    assert plan.words == f"CPU, {torch.get_num_threads()} threads"
    assert (plan.precision, plan.device.type, plan.memory) == ("fp32", "cpu", None)


@without_cuda
@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a GPU")
def test_auto_takes_the_cpu_where_nothing_else_is():
    assert plan_device().device.type == "cpu"


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_missing_gpu_is_told(device):
    with pytest.raises(DeviceUnavailableError, match=rf"{device}.*not available here, only cpu"):
        plan_device(device)


def test_fp16_needs_a_gpu():
    with pytest.raises(DeviceUnavailableError, match="needs a CUDA GPU"):
        plan_device("cpu", "fp16")


def test_unknown_devices_are_refused():
    with pytest.raises(ValueError, match="must be auto, cpu"):
        plan_device("meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_in_words():
    plan = plan_device()
    assert plan.device == torch.device("cuda", 0)
    assert "GB" in plan.words
    assert plan.precision in {"bf16", "fp16"}


def test_memory_errors_are_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


GPU = DevicePlan(torch.device("cuda", 0), "bf16", "a GPU", 24 * 2**30)
CPU = DevicePlan(torch.device("cpu"), "fp32", "CPU", None)


@pytest.mark.parametrize(
    ("crop", "task", "plan", "batch"),
    [
        (256, "pretrain", GPU, 64),
        (512, "pretrain", GPU, 16),
        (1024, "pretrain", GPU, 4),
        (64, "pretrain", GPU, 128),
        (256, "finetune", GPU, 16),
        (512, "finetune", GPU, 4),
        (2048, "finetune", GPU, 4),
        (256, "pretrain", CPU, 8),
        (256, "finetune", CPU, 4),
        (4096, "finetune", CPU, 1),
        (300, "pretrain", CPU, 4),
    ],
)
def test_the_automatic_batch(crop, task, plan, batch):
    assert plan_batch("auto", crop, "small", task, plan).batch == batch


def test_a_given_batch_is_kept_and_cut_to_the_memory():
    plan = plan_batch(100, 1024, "base", "pretrain", GPU)
    assert plan.batch == 100
    assert 1 <= plan.micro_batch < 10
    assert plan_batch(2, 64, "nano", "pretrain", GPU).micro_batch == 2


def test_halving_reaches_one():
    plan = BatchPlan(7, 7)
    sizes = []
    while plan.micro_batch > 1:
        plan = plan.halved()
        sizes.append((plan.micro_batch, plan.accumulate))
    assert sizes == [(4, 2), (2, 4), (1, 7)]


def test_a_shortage_keeps_no_tensor_alive():
    """Neither does the error that is told."""
    seen = []

    def work():
        tensor = torch.zeros(3)
        seen.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("CUDA out of memory")

    plan = plan_device("cpu")
    with (
        pytest.raises(OutOfMemoryError, match=r"It does not fit .*Take less") as told,
        memory_errors(plan, "It", "Take less"),
    ):
        work()
    assert seen[0]() is None
    assert told.value.__cause__ is None
