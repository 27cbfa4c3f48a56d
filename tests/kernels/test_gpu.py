"""The Triton kernels on a GPU: precision, capture, and the whole network; skipped without one."""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from affmae_kernels import (
    cluster_attention,
    cluster_merge,
    deformable_attention,
    dice_focal,
    find_neighbourhood,
    gelu,
    index_tokens,
    masked_convolution,
    residual_norm,
)
from napari_affmae.model import AFFMAE, preset
from napari_affmae.model.capture import Captured, CapturedStep, CaptureError, Copies
from napari_affmae.model.tokens.clustering import cluster_order
from napari_affmae.model.tokens.masking import draw_keys, draw_masks
from napari_affmae.model.tokens.patches import take_tokens
from napari_affmae.model.tokens.positions import positions_of

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.usefixtures("uninitialised_is_nan"),
]
CANVAS = (24, 32)
OPS = ("attention", "merging", "deformable", "norm", "gelu", "convolution", "wide convolution")


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda")


def stage(tokens: int) -> Tensor:
    """Positions (2, N, 2) of tokens in stage order."""
    keep, _ = draw_masks(draw_keys(2, torch.Generator().manual_seed(0)), CANVAS, 0.1)
    pos = positions_of(keep[:, torch.randperm(keep.shape[1])[:tokens]], CANVAS).cuda()
    return take_tokens(pos, cluster_order(pos, CANVAS, 8))


def gradients(call: Callable[..., Tensor], inputs: Sequence[Tensor], backend: str) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    result = call(*leaves, backend=backend)
    # A norm also returns the sum that it is of.
    out = torch.cat(result, -1) if isinstance(result, tuple) else result
    generator = torch.Generator("cuda").manual_seed(9)
    (out.float() * torch.randn(out.shape, device="cuda", generator=generator)).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@pytest.fixture(autouse=True)
def _exact_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN's convolutions would else round float32 inputs to 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def relative(found: Tensor, expected: Tensor) -> float:
    """Error over norm; of what is next to nothing, such as a gradient that cancels, the error."""
    return ((found.double() - expected).norm() / expected.norm().clamp(min=1)).item()


def case(op: str, tokens: int) -> tuple[Callable[..., Tensor], list[Tensor], int]:
    """An op on `tokens` tokens, its inputs, and how many of them are large."""
    torch.manual_seed(0)
    if op == "norm":
        inputs = [draw(2, tokens, 384), draw(2, tokens, 384), *(draw(384) for _ in range(3))]
        factors = torch.tensor([0.0, 1.5], device="cuda")
        return (
            lambda x, y, w, b, c, backend: residual_norm(
                x, y, w, b, branch_bias=c, factors=factors, backend=backend
            ),
            inputs,
            4,
        )
    if op == "gelu":
        inputs = [draw(2, tokens, 200), draw(200)]
        return lambda *t, backend: gelu(*t, backend=backend), inputs, 2
    if op in {"convolution", "wide convolution"}:
        channels = 1 if op == "convolution" else 24
        images, shown = draw(2, channels, 48, 8 * tokens), draw(2, 1, 6, tokens).gt(0).float()
        inputs = [draw(48, channels, 3, 3), draw(48), draw(48), draw(48)]
        return (
            lambda w, *t, backend: masked_convolution(
                images.to(w.dtype), shown.to(w.dtype), w, *(x.to(w.dtype) for x in t),
                backend=backend,
            ),
            inputs,
            1,
        )  # fmt: skip
    pos = stage(tokens)
    if op == "deformable":
        queries = stage(100)
        index = {b: index_tokens(pos, CANVAS, 4, backend=b) for b in ("torch", "triton")}
        inputs = [draw(2, tokens, 6, 64), draw(2, 100, 6 * 4 * 3) * 2]
        inputs += [torch.tensor(1.2, device="cuda")]
        return (
            lambda v, s, p, backend: deformable_attention(
                v, queries.to(p.dtype), s, p, index[backend], backend=backend
            ),
            inputs,
            2,
        )
    around = find_neighbourhood(pos, CANVAS, 64, 8)
    if op == "attention":
        inputs = [draw(2, tokens, 3, 3, 32), draw(3, 3, 32)]
        inputs += [draw(3, 32), draw(3, 32), draw(3, 5) * 0.2, draw(3)]
        return lambda *t, backend: cluster_attention(*t, around, backend=backend), inputs, 1
    selected = around.select(torch.arange(0, tokens, 3, device="cuda").expand(2, -1))
    inputs = [draw(2, tokens, 40), draw(2, tokens, 1).sigmoid(), draw(4, 5)]
    inputs += [draw(4), draw(4), draw(4)]
    return lambda *t, backend: cluster_merge(*t, selected, backend=backend), inputs, 1


@pytest.mark.parametrize("tokens", [1, 63, 640])
@pytest.mark.parametrize("op", OPS)
def test_float32_equals_float64(op: str, tokens: int) -> None:
    call, inputs, _ = case(op, tokens)
    expected = gradients(call, [t.double() for t in inputs], "torch")
    for found, value in zip(gradients(call, inputs, "triton"), expected, strict=True):
        assert relative(found, value) < 3e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("op", OPS)
def test_16_bit_inputs_cost_no_more_than_rounding(op: str, dtype: torch.dtype) -> None:
    call, inputs, large = case(op, 640)
    inputs = [t.to(dtype) if i < large else t for i, t in enumerate(inputs)]
    expected = gradients(call, [t.double() for t in inputs], "torch")
    found = gradients(call, inputs, "triton")
    # PyTorch rounds its results once; the kernels also round the softmax's weights.
    plain = gradients(call, inputs, "torch")
    for place in range(1 + large):
        assert relative(found[place], expected[place]) < 2 * relative(plain[place], expected[place])
        assert found[place].dtype == dtype


def labelled_pixels(height: int, width: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, a target of which a part is not labelled, and weights of the classes."""
    torch.manual_seed(0)
    target = torch.randint(classes, (3, height, width), device="cuda")
    target[torch.rand(target.shape, device="cuda") < 0.3] = -100
    target[1] = -100
    return draw(3, classes, height, width), target, draw(classes).sigmoid()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [(1, 1, 2), (63, 65, 3), (512, 640, 4), (100, 90, 32)])
def test_float32_loss_equals_float64(size: tuple[int, int, int], gamma: float) -> None:
    logits, target, weight = labelled_pixels(*size)

    def call(x: Tensor, backend: str) -> Tensor:
        return dice_focal(x, target, weight, gamma, backend=backend)

    expected = gradients(call, [logits.double()], "torch")
    for found, value in zip(gradients(call, [logits], "triton"), expected, strict=True):
        assert relative(found, value) < 3e-5


@pytest.mark.parametrize("layout", ["whole", "cropped", "channels last"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_logits_cost_the_loss_no_more_than_rounding(dtype: torch.dtype, layout: str) -> None:
    logits, target, weight = labelled_pixels(96, 100, 4)

    def call(x: Tensor, backend: str) -> Tensor:
        if layout == "cropped":
            x = x[..., 5:-4, 3:-8]
        elif layout == "channels last":
            x = x.contiguous(memory_format=torch.channels_last)
        # Times the pixels, as a loss is scaled that 16-bit gradients shall not vanish.
        labels = target[..., : x.shape[2], : x.shape[3]]
        return dice_focal(x, labels, weight, backend=backend) * labels.numel()

    inputs = [logits.to(dtype)]
    expected = gradients(call, [inputs[0].double()], "torch")
    found = gradients(call, inputs, "triton")
    plain = gradients(call, inputs, "torch")
    assert found[0].dtype == torch.float32
    assert found[1].dtype == dtype
    assert relative(found[0], expected[0]) < 1e-5
    assert relative(found[1], expected[1]) < 2 * relative(plain[1], expected[1])


def test_loss_is_captured_and_the_same_each_time() -> None:
    logits, target, weight = labelled_pixels(512, 512, 4)
    leaf = torch.nn.Parameter(logits)

    def learn(labels: Tensor) -> Tensor:
        value = dice_focal(leaf, labels, weight, backend="triton")
        value.backward()
        return value.detach()

    step = CapturedStep(learn, [target], [leaf])
    for labels in (target.roll(1, 0), torch.full_like(target, -100)):
        value = step(labels).clone()
        assert torch.equal(value, step(labels))
        mine = leaf.detach().clone().requires_grad_()
        expected = dice_focal(mine, labels, weight, backend="torch")
        expected.backward()
        torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=0)
        torch.testing.assert_close(leaf.grad, mine.grad, rtol=1e-3, atol=1e-11)
    assert value == 0
    assert leaf.grad.eq(0).all()


def nano() -> AFFMAE:
    config = preset("nano").model_copy(update={"drop_path": 0.0, "decoder_dropout": 0.0})
    torch.manual_seed(0)
    return AFFMAE(config)


def test_network_equals_that_on_the_cpu() -> None:
    mae = nano()
    images = torch.randn(2, 1, 192, 256, generator=torch.Generator().manual_seed(1))
    ids = draw_masks(draw_keys(2, torch.Generator().manual_seed(2)), CANVAS)
    expected = mae(images, *ids)
    expected.loss.backward()
    on_gpu = copy.deepcopy(mae).cuda()
    on_gpu.zero_grad()
    found = on_gpu(images.cuda(), *(i.cuda() for i in ids))
    found.loss.backward()
    torch.testing.assert_close(found.loss.cpu(), expected.loss, rtol=1e-3, atol=0)
    for level, reference in zip(found.features, expected.features, strict=True):
        assert torch.equal(level.pos.cpu(), reference.pos)
        assert relative(level.x.cpu(), reference.x.double()) < 1e-2
    whole = torch.stack([p.grad.norm() for p in mae.parameters()]).norm()
    for mine, theirs in zip(on_gpu.parameters(), mae.parameters(), strict=True):
        assert (mine.grad.cpu() - theirs.grad).norm() < 2e-2 * whole


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("captured", [False, True])
def test_another_gpu_than_the_current_one(captured: bool) -> None:
    images = torch.randn(2, 1, 192, 256, generator=torch.Generator().manual_seed(1))
    ids = draw_masks(draw_keys(2, torch.Generator().manual_seed(2)), CANVAS)
    results = []
    for device in ("cuda:0", "cuda:1"):
        mae = nano().to(device)
        batch = [t.to(device) for t in (images, *ids)]

        def step(*batch: Tensor, mae: AFFMAE = mae) -> Tensor:
            loss = mae(*batch).loss
            loss.backward()
            return loss.detach()

        call = CapturedStep(step, batch, list(mae.parameters())) if captured else step
        loss = call(*batch)
        results.append([loss.cpu(), *(p.grad.cpu() for p in mae.parameters())])
        assert torch.cuda.current_device() == 0
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=0)
    whole = torch.stack([grad.norm() for grad in results[0][1:]]).norm()
    for first, second in zip(*results, strict=True):
        assert (second - first).norm() < 1e-3 * whole


def test_captured_steps_learn_like_eager_ones() -> None:
    """New images and masks each step, loss scaling, gradients of two micro-batches."""
    curves = []
    for captured in (False, True):
        mae = nano().cuda()
        runner = Copies(mae, torch.float16)
        parameters = list(mae.parameters())
        optimiser = torch.optim.AdamW(parameters, lr=1e-3)

        def work(images: Tensor, keep: Tensor, masked: Tensor, runner: Copies = runner) -> Tensor:
            with torch.autocast("cuda", torch.float16, cache_enabled=False):
                loss = runner(images, keep, masked).loss * 1024.0
            loss.backward()
            return loss.detach()

        step, curve = None, []
        for number in range(30):
            sums = [torch.zeros_like(p) for p in parameters]
            for half in range(2):
                generator = torch.Generator().manual_seed(2 * number + half)
                images = torch.randn(2, 1, 192, 256, generator=generator).cumsum(-1) / 16
                batch = [images, *draw_masks(draw_keys(2, generator), CANVAS)]
                batch = [t.cuda() for t in batch]
                if captured:
                    step = step or CapturedStep(work, batch, parameters)
                    value = step(*batch)
                else:
                    mae.zero_grad(set_to_none=True)
                    value = work(*batch)
                torch._foreach_add_(sums, [p.grad / 2048 for p in parameters])
            curve.append(value.item() / 1024)
            for parameter, total in zip(parameters, sums, strict=True):
                parameter.grad.copy_(total)
            optimiser.step()
        curves.append(torch.tensor(curve))
    assert torch.isfinite(curves[1]).all()
    torch.testing.assert_close(curves[1], curves[0], rtol=0.03, atol=0)
    assert curves[1][-1] < curves[1][0]


def test_dropout_differs_from_replay_to_replay() -> None:
    mae = AFFMAE(preset("nano")).cuda().train()
    ids = [i.cuda() for i in draw_masks(draw_keys(2, torch.Generator().manual_seed(2)), CANVAS)]
    images = draw(2, 1, 192, 256)

    def work(*batch: Tensor) -> Tensor:
        loss = mae(*batch).loss
        loss.backward()
        return loss.detach()

    step = CapturedStep(work, [images, *ids], list(mae.parameters()))
    losses = {step(images, *ids).item() for _ in range(4)}
    assert len(losses) > 1


def test_replays_draw_what_eager_steps_draw() -> None:
    """Also where the generator was seeded between two replays."""
    x = draw(1000)
    work = torch.nn.functional.dropout
    captured = Captured(work, [x])
    for seed in (1, 2, 1):
        torch.cuda.manual_seed(seed)
        expected = [work(x), work(x)]
        torch.cuda.manual_seed(seed)
        for value in expected:
            assert torch.equal(captured(x), value)


def test_gradients_of_replays() -> None:
    """They overwrite those of the last; what gets none has none."""
    used, unused = (torch.nn.Parameter(draw(3)) for _ in range(2))

    def work(x: Tensor) -> Tensor:
        loss = (used * x).sum()
        loss.backward()
        return loss.detach()

    x = draw(3)
    step = CapturedStep(work, [x], [used, unused])
    step(x)
    torch.testing.assert_close(used.grad, x)
    assert unused.grad is None
    step(2 * x)
    torch.testing.assert_close(used.grad, 2 * x)
    used.grad = None
    step(x)
    torch.testing.assert_close(used.grad, x)


def test_a_recording_that_fails_leaves_no_trace() -> None:
    """Streams, random numbers and memory go on, and the next recording succeeds."""
    weight = torch.nn.Parameter(draw(3))
    weight.grad = before = draw(3)

    def waiting(x: Tensor) -> Tensor:
        drawn = torch.rand(1000, 1000, device="cuda")
        return drawn * (x * weight).sum().item()

    stream = torch.cuda.current_stream()
    torch.cuda.manual_seed(5)
    expected = torch.rand(4, device="cuda")
    torch.cuda.manual_seed(5)
    with pytest.raises(CaptureError, match="captur"):
        CapturedStep(waiting, [draw(3).fill_(1.0)], [weight])
    assert torch.cuda.current_stream() == stream
    assert weight.grad is before
    torch.cuda.manual_seed(5)
    assert torch.equal(torch.rand(4, device="cuda"), expected)
    torch.cuda.empty_cache()
    assert torch.equal(Captured(torch.square, [before])(before), before.square())


def test_errors_of_the_work_itself_come_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        Captured(lambda x: x.view(7), [draw(3)])
