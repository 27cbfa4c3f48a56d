"""The effective rank of features whose rank is known."""

import pytest
import torch

from napari_affmae.engine.training.gauge.effective_rank import effective_rank, stage_ranks
from napari_affmae.model import AFFMAE, preset


def orthogonal(rows: int, columns: int) -> torch.Tensor:
    """Make columns that are orthogonal, of length 1 and of mean 0."""
    columns_ = torch.randn(rows, columns).double()
    return torch.linalg.qr(columns_ - columns_.mean(0))[0]


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_it_counts_directions_of_equal_length(directions: int) -> None:
    torch.manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(8, 8).double())
    features = orthogonal(100, directions) @ turn[:directions]
    assert effective_rank(5 + features.float()) == pytest.approx(directions, rel=1e-3)


def test_unequal_directions_count_by_entropy() -> None:
    torch.manual_seed(0)
    features = orthogonal(50, 2) * torch.tensor([3.0, 1.0])
    shares = torch.tensor([0.75, 0.25])
    expected = (-(shares * shares.log()).sum()).exp().item()
    assert effective_rank(features) == pytest.approx(expected, rel=1e-6)


def test_equal_features_have_none() -> None:
    assert effective_rank(torch.full((20, 4), 0.1)) == 0


def test_every_stage_of_an_encoder_is_measured() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 1, 64, 64)
    config = preset("nano")
    ranks = stage_ranks(AFFMAE(config).eval(), images)
    assert len(ranks) == 4
    assert all(1 < rank <= width for rank, width in zip(ranks, config.channels, strict=True))
