"""Masks cover the canvas, hide blobs, and repeat by seed."""

import math

import pytest
import torch

from napari_affmae.model.masking import draw_masks, perlin_noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boundary(hidden: torch.Tensor) -> float:
    """Share of neighbouring patches of which one is hidden and the other is not."""
    across = (hidden[:, 1:] != hidden[:, :-1]).float().mean()
    down = (hidden[1:] != hidden[:-1]).float().mean()
    return float(across + down) / 2


def hidden_canvas(ids_masked: torch.Tensor, canvas: tuple[int, int]) -> torch.Tensor:
    hidden = torch.zeros(canvas[0] * canvas[1], dtype=torch.bool)
    hidden[ids_masked] = True
    return hidden.view(canvas)


@pytest.mark.parametrize("kind", ["perlin", "uniform"])
@pytest.mark.parametrize(
    ("batch", "canvas", "ratio"),
    [(1, (8, 8), 0.5), (3, (9, 21), 0.75), (4, (16, 16), 0.3), (7, (13, 8), 0.5)],
)
def test_every_patch_is_either_visible_or_hidden(
    kind: str, batch: int, canvas: tuple[int, int], ratio: float
) -> None:
    ids_keep, ids_masked = draw_masks(batch, canvas, ratio, kind=kind, generator=seeded())
    patches = canvas[0] * canvas[1]
    assert ids_keep.shape == (batch, int(patches * (1 - ratio)))
    assert ids_keep.dtype == ids_masked.dtype == torch.int64
    together = torch.cat([ids_keep, ids_masked], dim=1).sort(dim=1).values
    assert together.eq(torch.arange(patches)).all()


@pytest.mark.parametrize("kind", ["perlin", "uniform"])
def test_the_seed_decides(kind: str) -> None:
    first = draw_masks(5, (16, 16), 0.5, kind=kind, generator=seeded(1))[0]
    again = draw_masks(5, (16, 16), 0.5, kind=kind, generator=seeded(1))[0]
    other = draw_masks(5, (16, 16), 0.5, kind=kind, generator=seeded(2))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_of_a_batch_differ() -> None:
    ids_keep, _ = draw_masks(2, (16, 16), 0.5, generator=seeded())
    assert not torch.equal(ids_keep[0], ids_keep[1])


def test_the_lowest_noise_stays_visible_in_its_order() -> None:
    ids_keep, ids_masked = draw_masks(1, (16, 24), 0.5, generator=seeded())
    noise = perlin_noise(1, (16, 24), 8, seeded()).flatten()
    assert noise[ids_keep[0]].diff().min() >= 0
    assert noise[ids_keep[0]].max() <= noise[ids_masked[0]].min()


def test_hidden_patches_come_row_by_row() -> None:
    _, ids_masked = draw_masks(3, (16, 24), 0.5, generator=seeded())
    assert ids_masked.diff(dim=1).min() > 0


def test_perlin_equals_its_formula() -> None:
    canvas, cells = (10, 7), 4
    noise = perlin_noise(2, canvas, cells, seeded())
    angles = 2 * math.pi * torch.rand(2, cells + 1, cells + 1, generator=seeded())
    for row in range(canvas[0]):
        for column in range(canvas[1]):
            y, x = (row + 0.5) / canvas[0] * cells, (column + 0.5) / canvas[1] * cells
            expected = 0.0
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    angle = float(angles[1, i, j])
                    dot = math.sin(angle) * (y - i) + math.cos(angle) * (x - j)
                    ease = [
                        6 * t**5 - 15 * t**4 + 10 * t**3 for t in (1 - abs(y - i), 1 - abs(x - j))
                    ]
                    expected += ease[0] * ease[1] * dot
            assert float(noise[1, row, column]) == pytest.approx(expected, abs=1e-5)


def test_perlin_cells_never_exceed_the_canvas() -> None:
    finest = perlin_noise(1, (12, 20), 64, seeded())
    assert torch.equal(finest, perlin_noise(1, (12, 20), 12, seeded()))
    assert finest.abs().max() > 0.1


def test_blobs_get_smaller_through_the_batch() -> None:
    canvas = (128, 128)
    _, ids_masked = draw_masks(8, canvas, 0.5, generator=seeded())
    edges = [boundary(hidden_canvas(ids, canvas)) for ids in ids_masked]
    for image in range(0, 8, 2):
        assert edges[image] == pytest.approx(edges[image + 1], rel=0.25)
    assert edges[0] * 1.5 < edges[2]
    assert edges[2] * 1.5 < edges[4]
    assert edges[4] * 1.2 < edges[6]
    assert edges[6] < 0.5


def test_small_batches_hide_large_blobs() -> None:
    canvas = (64, 64)
    _, ids_masked = draw_masks(3, canvas, 0.5, generator=seeded())
    assert max(boundary(hidden_canvas(ids, canvas)) for ids in ids_masked) < 0.2


def test_half_of_a_perlin_mask_is_not_half_a_picture() -> None:
    """Sampled at lattice points the noise would be zero, and ties keep their order."""
    canvas = (64, 64)
    _, ids_masked = draw_masks(4, canvas, 0.5, generator=seeded())
    hidden = hidden_canvas(ids_masked[3], canvas)
    assert 0.3 < hidden[:32].float().mean() < 0.7


@pytest.mark.parametrize("ratio", [-0.1, 0.0, 0.999, 1.0])
def test_ratios_that_leave_nothing_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="at least one visible and one hidden"):
        draw_masks(1, (8, 8), ratio)


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="'perlin' or 'uniform', got 'blue'"):
        draw_masks(1, (8, 8), 0.5, kind="blue")
