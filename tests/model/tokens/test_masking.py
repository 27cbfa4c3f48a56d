"""Masks cover the canvas, hide blobs, and repeat by seed."""

import pytest
import torch

from affmae_kernels import mask_noise
from napari_affmae.model.tokens.masking import draw_keys, draw_masks, group_cells


def keys(batch: int, seed: int = 0) -> torch.Tensor:
    return draw_keys(batch, torch.Generator().manual_seed(seed))


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
    ids_keep, ids_masked = draw_masks(keys(batch), canvas, ratio, kind)
    patches = canvas[0] * canvas[1]
    assert ids_keep.shape == (batch, int(patches * (1 - ratio)))
    assert ids_keep.dtype == ids_masked.dtype == torch.int64
    together = torch.cat([ids_keep, ids_masked], dim=1).sort(dim=1).values
    assert together.eq(torch.arange(patches)).all()


@pytest.mark.parametrize("kind", ["perlin", "uniform"])
def test_the_seed_decides(kind: str) -> None:
    first = draw_masks(keys(5, 1), (16, 16), 0.5, kind)[0]
    again = draw_masks(keys(5, 1), (16, 16), 0.5, kind)[0]
    other = draw_masks(keys(5, 2), (16, 16), 0.5, kind)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_of_a_batch_differ() -> None:
    ids_keep, _ = draw_masks(keys(2), (16, 16), 0.5)
    assert not torch.equal(ids_keep[0], ids_keep[1])


def test_the_lowest_noise_stays_visible_in_its_order() -> None:
    ids_keep, ids_masked = draw_masks(keys(1), (16, 24), 0.5)
    noise = mask_noise(keys(1), (16, 24), "perlin", group_cells(1, "cpu")).flatten()
    assert noise[ids_keep[0]].diff().min() >= 0
    assert noise[ids_keep[0]].max() <= noise[ids_masked[0]].min()


def test_hidden_patches_come_row_by_row() -> None:
    _, ids_masked = draw_masks(keys(3), (16, 24), 0.5)
    assert ids_masked.diff(dim=1).min() > 0


def test_a_mask_follows_from_its_key_alone() -> None:
    cells = torch.tensor([8, 64, 16])
    whole = draw_masks(keys(3), (16, 24), 0.5, cells=cells)
    for image in range(3):
        alone = draw_masks(keys(3)[[image]], (16, 24), 0.5, cells=cells[[image]])
        for mine, all_of_them in zip(alone, whole, strict=True):
            assert torch.equal(mine[0], all_of_them[image])


def test_keys_are_drawn_from_the_generator_or_the_default_one() -> None:
    assert torch.equal(keys(4, 3), keys(4, 3))
    torch.manual_seed(5)
    first, second = draw_keys(4), draw_keys(4)
    assert first.dtype == torch.int64
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(draw_keys(4), first)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(3, [8, 8, 8]), (4, [8, 16, 32, 64]), (6, [8, 8, 16, 16, 32, 64])],
)
def test_batches_are_split_into_four_groups(batch: int, expected: list[int]) -> None:
    assert group_cells(batch, "cpu").tolist() == expected


def test_blobs_get_smaller_through_the_batch() -> None:
    canvas = (128, 128)
    _, ids_masked = draw_masks(keys(8), canvas, 0.5)
    edges = [boundary(hidden_canvas(ids, canvas)) for ids in ids_masked]
    for image in range(0, 8, 2):
        assert edges[image] == pytest.approx(edges[image + 1], rel=0.25)
    assert edges[0] * 1.5 < edges[2]
    assert edges[2] * 1.5 < edges[4]
    assert edges[4] * 1.2 < edges[6]
    assert edges[6] < 0.5


def test_small_batches_hide_large_blobs() -> None:
    canvas = (64, 64)
    _, ids_masked = draw_masks(keys(3), canvas, 0.5)
    assert max(boundary(hidden_canvas(ids, canvas)) for ids in ids_masked) < 0.2


def test_half_of_a_perlin_mask_is_not_half_a_picture() -> None:
    """Sampled at lattice points the noise would be zero, and ties keep their order."""
    canvas = (64, 64)
    _, ids_masked = draw_masks(keys(4), canvas, 0.5)
    hidden = hidden_canvas(ids_masked[3], canvas)
    assert 0.3 < hidden[:32].float().mean() < 0.7


@pytest.mark.parametrize("ratio", [-0.1, 0.0, 0.999, 1.0])
def test_ratios_that_leave_nothing_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="at least one visible and one hidden"):
        draw_masks(keys(1), (8, 8), ratio)


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="'perlin' or 'uniform', got 'blue'"):
        draw_masks(keys(1), (8, 8), 0.5, kind="blue")
