"""One optimiser step, on the real network."""

import threading
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from napari_affmae.config import PretrainConfig
from napari_affmae.data import normalize_sources
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.training.image_memory import PoolPlan
from napari_affmae.engine.training.pretraining import Pretraining
from napari_affmae.engine.training.steps.batch import BatchPlan
from napari_affmae.engine.training.steps.optimiser import state_tensors
from napari_affmae.engine.training.steps.stepper import Stepper
from napari_affmae.errors import DivergedError, OutOfMemoryError
from napari_affmae.model import AFFMAE, preset


def _normalized(image):
    return normalize_sources([image], PretrainConfig(steps=1).normalization)


@pytest.fixture
def make(image):
    """Build a stepper around a freshly made network, without dropout by default."""

    def build(micro_batch, batch=5, precision="fp32", dropout=0.0):
        torch.manual_seed(0)
        model = preset("nano").model_copy(update={"drop_path": dropout, "decoder_dropout": dropout})
        runtime = Runtime(plan_device("cpu", precision))
        task = Pretraining(
            PretrainConfig(crop=64, steps=1),
            AFFMAE(model),
            _normalized(image),
            BatchPlan(batch, micro_batch),
            PoolPlan(runtime.plan.device, 2**20),
        )
        task.crops.pool.fill()
        return task, Stepper(task, runtime)

    return build


@pytest.fixture
def plan(make):
    """Five crops, the same for every stepper."""
    task, _ = make(5)
    return task.crops.plan(0, 5)


def step_of(stepper, plan, step=1, rate=0.0):
    """Make a step and look at what it measured."""
    return stepper.read(stepper.launch(plan, step, rate))


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
def test_accumulated_gradients_are_those_of_the_batch(make, plan, micro_batch):
    results = []
    for size in (5, micro_batch):
        task, stepper = make(size)
        measured = step_of(stepper, plan)
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


def test_running_out_of_memory_halves_until_it_fits(make, plan):
    task, stepper = make(5)
    task.module.register_forward_pre_hook(hungry(2))
    assert stepper.launch(plan, 1, 0.0) is None
    assert stepper.batch == BatchPlan(5, 3)
    assert stepper.launch(plan, 1, 0.0) is None
    assert stepper.batch == BatchPlan(5, 2)
    assert not stepper.is_warm
    assert stepper.launch(plan, 1, 0.0) is not None
    assert stepper.is_warm
    reference, other = make(2)
    other.launch(plan, 1, 0.0)
    assert_close(gradients(task.module), gradients(reference.module))


def test_a_failure_between_micro_batches_leaves_no_gradient(make, plan):
    """The first half had passed before the second ran out of memory."""
    task, stepper = make(3)
    calls = []

    def second_time(module, inputs):
        calls.append(len(inputs[0]))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    task.module.register_forward_pre_hook(second_time)
    assert stepper.launch(plan, 1, 0.0) is None
    assert not gradients(task.module)


def test_a_single_crop_that_does_not_fit_is_an_error(make, plan):
    task, stepper = make(1)
    task.module.register_forward_pre_hook(hungry(0))
    with pytest.raises(OutOfMemoryError, match=r"step 7 .*single crop.*smaller crop or preset"):
        stepper.launch(plan, 7, 0.0)


def test_other_errors_pass_through(make, plan):
    task, stepper = make(5)
    task.module.register_forward_pre_hook(lambda module, inputs: inputs[0].view(-1, 7))
    with pytest.raises(RuntimeError, match="shape"):
        stepper.launch(plan, 1, 0.0)


def test_a_loss_that_is_not_finite_leaves_the_weights(make, plan):
    task, stepper = make(5)
    before = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}
    limits = plan.limits.clone()
    limits[3, 0, 2] = torch.inf
    with pytest.raises(DivergedError, match=r"step 4: the loss is (nan|inf).*intact.*below 0.0005"):
        step_of(stepper, plan._replace(limits=limits), 4, 1e-3)
    for name, tensor in task.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_gradient_that_is_not_finite_is_an_error(make, plan):
    task, stepper = make(5)
    first = next(task.module.parameters())
    before = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}
    first.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(DivergedError, match="norm of the gradient"):
        step_of(stepper, plan, 1, 1e-3)
    for name, tensor in task.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_gradients_are_clipped(make, plan):
    task, stepper = make(5)
    stepper.updater._clip = 1e-3
    measured = step_of(stepper, plan)
    norm = torch.stack([g.norm() for g in gradients(task.module).values()]).norm()
    assert measured.gradient_norm > 1e-2
    assert norm == pytest.approx(1e-3, rel=1e-2)


def test_bf16_computes_in_bf16_and_keeps_float32_weights(make, plan):
    task, stepper = make(5, precision="bf16")
    seen = []
    task.module.encoder.stages[0].blocks[0].attention.register_forward_hook(
        lambda module, inputs, branch: seen.append(branch.value.dtype)
    )
    _, exact = make(5)
    measured = step_of(stepper, plan, 1, 1e-3)
    expected = step_of(exact, plan, 1, 1e-3)
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in task.module.parameters()} == {torch.float32}
    assert measured.loss == pytest.approx(expected.loss, rel=0.02)


def test_dropout_is_drawn_by_step(make, plan):
    """The same step twice is the same, whatever was drawn in between; another step is not."""
    losses = []
    for step in (3, 3, 4):
        _, stepper = make(5, dropout=0.1)
        torch.rand(len(losses))
        losses.append(step_of(stepper, plan, step).loss)
    assert losses[0] == losses[1] != losses[2]


def test_weights_move_against_the_gradient_by_the_rate_of_their_group(make, plan):
    task, stepper = make(5)
    before = {name: tensor.clone() for name, tensor in task.module.named_parameters()}
    step_of(stepper, plan, 1, 1e-3)
    for name, parameter in task.module.named_parameters():
        moved = parameter.detach() - before[name]
        shrunk = 1e-3 * 0.05 * before[name] if parameter.ndim > 1 else 0.0
        # The first step of Adam is the rate, whatever the size of the gradient.
        large = parameter.grad.abs() > 1e-6
        expected = -1e-3 * parameter.grad.sign() - shrunk
        torch.testing.assert_close(moved[large], expected[large], rtol=0.02, atol=1e-6)


def test_the_state_of_the_updater_comes_back(make, plan):
    """A step after it is the same as without the way through a file."""
    task, stepper = make(5)
    step_of(stepper, plan, 1, 1e-3)
    tensors = {
        key: value.clone()
        for key, value in state_tensors(task.module, stepper.updater.optimiser).items()
    }
    other_task, other = make(5)
    other_task.module.load_state_dict(task.module.state_dict())
    other.updater.load(other_task.module, tensors, stepper.updater.scaler)
    for one in (stepper, other):
        step_of(one, plan, 2, 1e-3)
    for mine, theirs in zip(task.module.parameters(), other_task.module.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_runs_beside_each_other_draw_what_they_draw_alone(make, plan):
    """Two networks train in two threads; dropout of each is as if the other were not there."""

    def train(stepper, losses):
        torch.set_num_threads(1)
        for step in range(1, 9):
            losses.append(step_of(stepper, plan, step, 1e-3).loss)

    alone: list[float] = []
    train(make(5, dropout=0.2)[1], alone)
    together = [[], []]
    steppers = [make(5, dropout=0.2)[1] for _ in together]
    threads = [
        threading.Thread(target=train, args=pair) for pair in zip(steppers, together, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone, alone]
