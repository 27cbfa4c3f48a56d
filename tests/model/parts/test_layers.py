"""Layers that save memory or time compute what their plain versions do."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from affmae_kernels import dropout, relu_dropout
from napari_affmae.model.capture import Copies
from napari_affmae.model.parts.heads import Head
from napari_affmae.model.parts.layers import MLP, Branch, Linear, Norm, draw_paths


def plain_mlp(mlp: MLP, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = mlp.contract(F.gelu(mlp.expand(x)))
    return out


def plain_head(head: Head, x: torch.Tensor) -> torch.Tensor:
    norm, linear = head
    out: torch.Tensor = linear(norm(x))
    return out


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    ("layer", "layer_by_layer"),
    [(MLP(8, 16), plain_mlp), (Head(Norm(8), Linear(8, 3)), plain_head)],
    ids=["mlp", "head"],
)
def test_what_is_recomputed_has_the_plain_gradients(
    layer: torch.nn.Module, layer_by_layer: Callable[..., torch.Tensor], autocast: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8, requires_grad=True)
    leaves = [x, *layer.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        recomputed, plain = layer(x), layer_by_layer(layer, x)
    if isinstance(recomputed, Branch):
        recomputed = recomputed.value
    assert torch.equal(recomputed, plain)
    found, expected = (
        torch.autograd.grad(out.float().square().sum(), leaves) for out in (recomputed, plain)
    )
    # Gradients of biases are added up in float32, whatever the precision around them.
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if autocast else {}
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.9])
def test_dropout_drops_its_share_and_the_same_of_the_gradient(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(301, 333, requires_grad=True)
    out = dropout(x, rate)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=0.01)
    assert out.max().item() == pytest.approx(1 / (1 - rate))


def test_branches_are_skipped_by_whole_images_and_keep_the_mean() -> None:
    torch.manual_seed(0)
    drawn = draw_paths(torch.tensor([0.0, 0.25]), 20000)
    assert drawn.shape == (2, 2, 20000)
    assert (drawn[0] == 1).all()
    assert drawn[1].unique().tolist() == pytest.approx([0, 4 / 3])
    assert drawn[1].mean(dim=1).flatten().tolist() == pytest.approx([1, 1], abs=0.02)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_dropout_after_relu_has_the_gradient_of_the_two(rate: float) -> None:
    x = torch.randn(7, 33, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    out = relu_dropout(x * 1, None, rate)
    torch.manual_seed(0)
    plain = dropout(F.relu(x), rate)
    torch.testing.assert_close(out, plain)
    weights = torch.randn_like(x)
    found, expected = (torch.autograd.grad(y, x, weights)[0] for y in (out, plain))
    torch.testing.assert_close(found, expected)
    assert 0 < (out == 0).sum() < out.numel()


def test_copies_are_made_for_a_pass_and_leave_the_gradients_to_the_weights() -> None:
    torch.manual_seed(0)
    mlp, x = MLP(16, 32), torch.randn(5, 16)
    results = []
    for network in (mlp, Copies(mlp, torch.bfloat16)):
        mlp.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            out = network(x).value
        out.float().square().sum().backward()
        results.append([out.detach(), *(p.grad for p in mlp.parameters())])
    for plain, copied in zip(*results, strict=True):
        assert torch.equal(plain, copied)
    assert results[0][1].dtype == torch.float32
    assert mlp.expand.copies is None
