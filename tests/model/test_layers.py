"""Layers that save memory or time compute what their plain versions do."""

import pytest
import torch
from torch.nn import functional as F

from affmae_kernels import dropout
from napari_affmae.model.layers import MLP, draw_paths


@pytest.mark.parametrize("autocast", [False, True])
def test_a_recomputed_mlp_has_the_plain_gradients(autocast: bool) -> None:
    torch.manual_seed(0)
    mlp = MLP(8, 16)
    x = torch.randn(3, 5, 8, requires_grad=True)
    leaves = [x, *mlp.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        recomputed = mlp(x)
        plain = mlp.contract(F.gelu(mlp.expand(x)))
    assert torch.equal(recomputed, plain)
    found, expected = (
        torch.autograd.grad(out.float().square().sum(), leaves) for out in (recomputed, plain)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


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
    assert drawn.shape == (2, 2, 20000, 1, 1)
    assert (drawn[0] == 1).all()
    assert drawn[1].unique().tolist() == pytest.approx([0, 4 / 3])
    assert drawn[1].mean(dim=1).flatten().tolist() == pytest.approx([1, 1], abs=0.02)
