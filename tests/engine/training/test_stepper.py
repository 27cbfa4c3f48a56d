"""One optimiser step, on the real network."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from napari_affmae.config import PretrainConfig
from napari_affmae.data import normalize_sources
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.training.batch import BatchPlan
from napari_affmae.engine.training.pretraining import Pretraining
from napari_affmae.engine.training.stepper import Stepper
from napari_affmae.errors import DivergedError, OutOfMemoryError
from napari_affmae.model import AFFMAE, preset


@pytest.fixture(scope="module")
def batch(image):
    config = PretrainConfig(crop=64, steps=1)
    crops = Pretraining(config, AFFMAE(preset("nano")), _normalized(image), 5).crops
    return torch.stack([torch.from_numpy(crops.sample(index)) for index in range(5)])


def _normalized(image):
    return normalize_sources([image], PretrainConfig(steps=1).normalization)


@pytest.fixture
def make(image):
    """Build a stepper around a freshly made network without dropout."""

    def build(micro_batch, batch=5, precision="fp32"):
        torch.manual_seed(0)
        model = preset("nano").model_copy(update={"drop_path": 0.0, "decoder_dropout": 0.0})
        module = AFFMAE(model)
        task = Pretraining(PretrainConfig(crop=64, steps=1), module, _normalized(image), 5)
        runtime = Runtime(plan_device("cpu", precision))
        return task, Stepper(task, runtime, BatchPlan(batch, micro_batch))

    return build


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def assert_close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]):
    assert ours.keys() == theirs.keys()
    scale = torch.stack([tensor.norm() for tensor in theirs.values()]).norm()
    for name in theirs:
        assert (ours[name] - theirs[name]).norm() < 1e-5 * scale, name


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_accumulated_gradients_are_those_of_the_batch(make, batch, micro_batch):
    results = []
    for size in (5, micro_batch):
        task, stepper = make(size)
        measured = stepper.make(task.prepare((batch,), 1), 1, 0.0)
        results.append((measured, gradients(task.module)))
    (whole, whole_gradients), (parts, part_gradients) = results
    assert_close(part_gradients, whole_gradients)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-4)


def hungry(limit):
    def hook(module, inputs):
        if len(inputs[0]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return hook


def test_running_out_of_memory_halves_until_it_fits(make, batch):
    task, stepper = make(5)
    task.module.register_forward_pre_hook(hungry(2))
    prepared = task.prepare((batch,), 1)
    assert stepper.make(prepared, 1, 0.0) is None
    assert stepper.batch == BatchPlan(5, 3)
    assert stepper.make(prepared, 1, 0.0) is None
    assert stepper.batch == BatchPlan(5, 2)
    assert stepper.make(prepared, 1, 0.0) is not None
    reference, other = make(2)
    other.make(reference.prepare((batch,), 1), 1, 0.0)
    assert_close(gradients(task.module), gradients(reference.module))


def test_a_failure_between_micro_batches_leaves_no_gradient(make, batch):
    """The first half had passed before the second ran out of memory."""
    task, stepper = make(3)
    calls = []

    def second_time(module, inputs):
        calls.append(len(inputs[0]))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    task.module.register_forward_pre_hook(second_time)
    assert stepper.make(task.prepare((batch,), 1), 1, 0.0) is None
    assert not gradients(task.module)


def test_a_single_crop_that_does_not_fit_is_an_error(make, batch):
    task, stepper = make(1)
    task.module.register_forward_pre_hook(hungry(0))
    with pytest.raises(OutOfMemoryError, match=r"step 7 .*single crop.*smaller crop or preset"):
        stepper.make(task.prepare((batch,), 7), 7, 0.0)


def test_other_errors_pass_through(make, batch):
    task, stepper = make(5)
    task.module.register_forward_pre_hook(lambda module, inputs: inputs[0].view(-1, 7))
    with pytest.raises(RuntimeError, match="shape"):
        stepper.make(task.prepare((batch,), 1), 1, 0.0)


def test_a_loss_that_is_not_finite_leaves_the_weights(make, batch):
    task, stepper = make(5)
    before = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}
    spoiled = batch.clone()
    spoiled[3, 0, 5, 5] = torch.inf
    with pytest.raises(DivergedError, match=r"step 4: the loss is (nan|inf).*intact.*below 0.0005"):
        stepper.make(task.prepare((spoiled,), 4), 4, 1e-3)
    for name, tensor in task.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_gradient_that_is_not_finite_is_an_error(make, batch):
    task, stepper = make(5)
    first = next(task.module.parameters())
    first.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(DivergedError, match="norm of the gradient"):
        stepper.make(task.prepare((batch,), 1), 1, 1e-3)


def test_gradients_are_clipped(make, batch):
    task, stepper = make(5)
    task.config = task.config.model_copy(update={"clip": 1e-3})
    measured = stepper.make(task.prepare((batch,), 1), 1, 0.0)
    norm = torch.stack([g.norm() for g in gradients(task.module).values()]).norm()
    assert measured.gradient_norm > 1e-2
    assert norm == pytest.approx(1e-3, rel=1e-2)


def test_bf16_computes_in_bf16_and_keeps_float32_weights(make, batch):
    task, stepper = make(5, precision="bf16")
    seen = []
    task.module.encoder.stages[0].blocks[0].attention.register_forward_hook(
        lambda module, inputs, branch: seen.append(branch.value.dtype)
    )
    exact_task, exact = make(5)
    measured = stepper.make(task.prepare((batch,), 1), 1, 1e-3)
    expected = exact.make(exact_task.prepare((batch,), 1), 1, 1e-3)
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in task.module.parameters()} == {torch.float32}
    assert measured.loss == pytest.approx(expected.loss, rel=0.02)


def test_dropout_is_drawn_by_step(image, batch):
    """The same step twice is the same, whatever was drawn in between; another step is not."""
    losses = []
    for step in (3, 3, 4):
        torch.manual_seed(0)
        module = AFFMAE(preset("nano"))
        task = Pretraining(PretrainConfig(crop=64, steps=1), module, _normalized(image), 5)
        stepper = Stepper(task, Runtime(plan_device("cpu")), BatchPlan(5, 5))
        prepared = task.prepare((batch,), 1)
        torch.rand(len(losses))
        losses.append(stepper.make(prepared, step, 0.0).loss)
    assert losses[0] == losses[1] != losses[2]
