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
    find_neighbourhood,
    index_tokens,
    masked_convolution,
    residual_norm,
)
from napari_affmae.model import AFFMAE, preset
from napari_affmae.model.capture import Captured, CapturedStep, CaptureError, Copies
from napari_affmae.model.clustering import cluster_order
from napari_affmae.model.masking import draw_masks
from napari_affmae.model.patches import take_tokens
from napari_affmae.model.positions import positions_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CANVAS = (24, 32)
OPS = ("attention", "merging", "deformable", "norm", "convolution")


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda")


def stage(tokens: int) -> Tensor:
    """Positions (2, N, 2) of tokens in stage order."""
    keep, _ = draw_masks(2, CANVAS, 0.1, generator=torch.Generator().manual_seed(0))
    pos = positions_of(keep[:, torch.randperm(keep.shape[1])[:tokens]], CANVAS).cuda()
    return take_tokens(pos, cluster_order(pos, CANVAS, 8))


def gradients(call: Callable[..., Tensor], inputs: Sequence[Tensor], backend: str) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    out = call(*leaves, backend=backend)
    generator = torch.Generator("cuda").manual_seed(9)
    (out.float() * torch.randn(out.shape, device="cuda", generator=generator)).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm().clamp(min=1e-9)).item()


def case(op: str, tokens: int) -> tuple[Callable[..., Tensor], list[Tensor], int]:
    """An op on `tokens` tokens, its inputs, and how many of them are large."""
    torch.manual_seed(0)
    if op == "norm":
        inputs = [draw(2, tokens, 384), draw(2, tokens, 384), draw(384), draw(384)]
        return lambda *t, backend: residual_norm(*t, backend=backend), inputs, 4
    if op == "convolution":
        images, shown = draw(2, 1, 48, 8 * tokens), draw(2, 1, 6, tokens).gt(0).float()
        inputs = [draw(48, 1, 3, 3), draw(48), draw(48), draw(48)]
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
        inputs = [draw(2, tokens, 6, 64), draw(2, 100, 6, 4, 2) * 2]
        inputs += [draw(2, 100, 6, 4).softmax(-1), torch.tensor(1.2, device="cuda")]
        return (
            lambda v, o, w, p, backend: deformable_attention(
                v, queries.to(p.dtype), o, w, p, index[backend], backend=backend
            ),
            inputs,
            2,
        )
    around = find_neighbourhood(pos, CANVAS, 64, 8)
    if op == "attention":
        inputs = [draw(2, tokens, 3, 32) for _ in range(3)]
        inputs += [draw(3, 32), draw(3, 32), draw(3, 5) * 0.2, draw(3)]
        return lambda *t, backend: cluster_attention(*t, around, backend=backend), inputs, 3
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


def nano() -> AFFMAE:
    config = preset("nano").model_copy(update={"drop_path": 0.0, "decoder_dropout": 0.0})
    torch.manual_seed(0)
    return AFFMAE(config)


def test_network_equals_that_on_the_cpu() -> None:
    mae = nano()
    images = torch.randn(2, 1, 192, 256, generator=torch.Generator().manual_seed(1))
    ids = draw_masks(2, CANVAS, generator=torch.Generator().manual_seed(2))
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
                batch = [images, *draw_masks(2, CANVAS, generator=generator)]
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
    ids = [i.cuda() for i in draw_masks(2, CANVAS, generator=torch.Generator().manual_seed(2))]
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


@pytest.mark.parametrize("accumulate", [False, True])
def test_gradients_of_replays(accumulate: bool) -> None:
    """They overwrite those of the last, or add to what is there; what gets none has none."""
    used, unused = (torch.nn.Parameter(draw(3)) for _ in range(2))

    def work(x: Tensor) -> Tensor:
        loss = (used * x).sum()
        loss.backward()
        return loss.detach()

    x = draw(3)
    step = CapturedStep(work, [x], [used, unused], accumulate=accumulate)
    step(x)
    torch.testing.assert_close(used.grad, x)
    assert unused.grad is None
    step(2 * x)
    torch.testing.assert_close(used.grad, 3 * x if accumulate else 2 * x)
    used.grad = None
    if accumulate:
        step.clear()
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
