"""The network beyond its golden numbers: any image, nothing leaks, it learns, it carries over."""

import pytest
import torch
from torch import Tensor

from napari_affmae.config import ModelConfig
from napari_affmae.model import AFFMAE, PRESETS, AFFSegmenter, preset
from napari_affmae.model.losses import segmentation_loss
from napari_affmae.model.tokens.masking import draw_keys, draw_masks
from napari_affmae.model.tokens.patches import patchify, take_tokens, unpatchify

TINY = ModelConfig(
    channels=(16, 16, 32, 32),
    blocks=(1, 1, 1, 1),
    heads=(1, 2, 2, 2),
    decoder_width=24,
    decoder_heads=2,
    decoder_hidden=32,
    in_channels=2,
)


def images(height: int, width: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(batch, TINY.in_channels, height, width, generator=generator)


@pytest.fixture
def mae() -> AFFMAE:
    torch.manual_seed(0)
    return AFFMAE(TINY)


@pytest.fixture
def segmenter() -> AFFSegmenter:
    torch.manual_seed(0)
    return AFFSegmenter(TINY, 3)


# What the paper states, less two layers of each merging that its program never uses.
@pytest.mark.parametrize(("name", "millions"), [("small", 22.9), ("base", 65.6)])
def test_presets_have_the_published_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = AFFMAE(preset(name))
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.02)


def test_nano_is_small() -> None:
    with torch.device("meta"):
        model = AFFMAE(PRESETS["nano"])
    assert sum(parameter.numel() for parameter in model.parameters()) <= 3e6


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="nano, small, base, got 'tiny'"):
        preset("tiny")


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 136), (101, 67)])
def test_any_image_size(mae: AFFMAE, segmenter: AFFSegmenter, height: int, width: int) -> None:
    batch = images(height, width)
    canvas = (-(-height // 8), -(-width // 8))
    out = mae(batch)
    hidden = canvas[0] * canvas[1] - canvas[0] * canvas[1] // 2
    assert {p.shape for p in out.predictions.values()} == {(2, hidden, 8 * 8 * 2)}
    tokens = [level.pos.shape[1] for level in out.features]
    assert tokens[0] == canvas[0] * canvas[1] // 2
    assert tokens[1:] == [max(1, int(0.4 * n)) for n in tokens[:-1]]
    final, auxiliary = segmenter(batch, auxiliary=True)
    assert {final.shape, *(t.shape for t in auxiliary.values())} == {(2, 3, height, width)}
    assert set(auxiliary) == {"res4", "res5"}


def test_positions_stay_distinct_cells_at_every_stage(mae: AFFMAE) -> None:
    for level in mae(images(96, 120)).features:
        for pos in level.pos.tolist():
            cells = {tuple(p) for p in pos}
            assert len(cells) == len(pos)
            assert all(x in range(15) and y in range(12) for x, y in cells)


def test_hidden_pixels_do_not_reach_the_features(mae: AFFMAE) -> None:
    mae.eval()
    batch = images(64, 72)
    keep, masked = draw_masks(draw_keys(2, torch.Generator().manual_seed(0)), (8, 9), 0.5)
    patches = patchify(batch, 8)
    noise = torch.randn_like(take_tokens(patches, masked))
    index = masked[..., None].expand_as(noise)
    changed = unpatchify(patches.scatter(1, index, noise), (8, 9), 8, 2)
    before, after = mae(batch, keep, masked), mae(changed, keep, masked)
    for a, b in zip(before.features, after.features, strict=True):
        assert torch.equal(a.x, b.x)
    assert before.loss != after.loss


def test_loss_is_that_of_the_predictions(mae: AFFMAE) -> None:
    batch = images(64, 64)
    keep, masked = draw_masks(draw_keys(2, torch.Generator().manual_seed(0)), (8, 8), 0.5)
    out = mae(batch, keep, masked)
    targets = take_tokens(patchify(batch, 8), masked)
    parts = {name: (p - targets).square().mean() for name, p in out.predictions.items()}
    torch.testing.assert_close(
        out.loss, parts["res2"] + 0.12 * parts["res4"] + 0.05 * parts["res5"]
    )


def test_every_parameter_learns(mae: AFFMAE) -> None:
    mae(images(128, 128)).loss.backward()
    silent = [n for n, p in mae.named_parameters() if p.grad is None or not p.grad.any()]
    # Offsets start at the same distances everywhere; the weights follow once these differ.
    assert silent == []


def test_pretraining_learns_to_fill_in(mae: AFFMAE) -> None:
    waves = 2 * torch.sin(torch.arange(64) * 0.1)
    batch = (waves[:, None] * waves).expand(4, 2, 64, 64)
    masks = draw_masks(draw_keys(4, torch.Generator().manual_seed(0)), (8, 8), 0.5)
    optimiser = torch.optim.AdamW(mae.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = mae(batch, *masks).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_segmentation_learns_bright_and_dark(segmenter: AFFSegmenter) -> None:
    batch = images(64, 64)
    smooth = torch.nn.functional.avg_pool2d(batch, 9, 1, 4)
    optimiser = torch.optim.AdamW(segmenter.parameters(), lr=3e-3)
    target = (smooth[:, 0] > 0).long() + (smooth[:, 0] > 0.1).long()
    losses = []
    for _ in range(80):
        optimiser.zero_grad()
        loss = segmentation_loss(segmenter(batch), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_segmenter_takes_over_what_was_pretrained(mae: AFFMAE) -> None:
    segmenter = AFFSegmenter.from_pretrained(mae, 3).eval()
    mae.eval()
    batch = images(64, 64)
    pixels = mae.predict(mae.encoder(batch, (8, 8)), torch.arange(64).expand(2, -1), (8, 8))
    grey = unpatchify(pixels["res2"], (8, 8), 8, 2).mean(1, keepdim=True)
    # Every class starts as the reconstruction, apart from noise of 1e-4 in the head.
    torch.testing.assert_close(segmenter(batch), grey.expand(-1, 3, -1, -1), rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(1, 1, 64, 64), "2 channel"),
        (torch.zeros(1, 2, 56, 64), "at least 64 px"),
        (torch.zeros(2, 64, 64), r"\(B, C, H, W\)"),
        (torch.zeros(1, 2, 64, 64, dtype=torch.uint8), "floating point"),
    ],
)
def test_wrong_images_are_refused(mae: AFFMAE, batch: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mae(batch)


def test_half_of_a_mask_is_refused(mae: AFFMAE) -> None:
    with pytest.raises(ValueError, match="both ids_keep and ids_masked"):
        mae(images(64, 64), ids_keep=torch.zeros(2, 1, dtype=torch.int64))


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        AFFSegmenter(TINY, 1)
