"""The comparison model: sizes, leaks, learning, and what carries over."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from vit import (
    VIT_PRESETS,
    ViTConfig,
    ViTMAE,
    ViTSegmenter,
    sine_positions,
)

from napari_affmae.model.losses import segmentation_loss
from napari_affmae.model.tokens.masking import draw_keys, draw_masks
from napari_affmae.model.tokens.patches import patchify, take_tokens
from napari_affmae.model.tokens.positions import positions_of

TINY = ViTConfig(
    width=32, blocks=2, heads=2, decoder_width=16, decoder_blocks=1, decoder_heads=2, in_channels=2
)


@pytest.fixture
def mae() -> ViTMAE:
    torch.manual_seed(0)
    return ViTMAE(TINY)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 2, 64, 80, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def masks() -> tuple[torch.Tensor, torch.Tensor]:
    return draw_masks(draw_keys(2, torch.Generator().manual_seed(2)), (8, 10), 0.5)


@pytest.mark.parametrize(("name", "millions"), [("small", 22.9), ("base", 65.6)])
def test_presets_have_the_parameters_of_affmae(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = ViTMAE(VIT_PRESETS[name])
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.07)


def test_output_has_affmae_shapes(
    mae: ViTMAE, images: torch.Tensor, masks: tuple[torch.Tensor, torch.Tensor]
) -> None:
    out = mae(images, *masks)
    assert out.predictions["res2"].shape == (2, 40, 8 * 8 * 2)
    assert [(level.x.shape, level.pos.shape) for level in out.features] == [
        ((2, 40, 32), (2, 40, 2))
    ]
    target = take_tokens(patchify(images, 8), masks[1])
    expected = F.mse_loss(out.predictions["res2"], target)
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(out.losses["res2"], expected)
    columns = out.features[0].pos[..., 0] + 10 * out.features[0].pos[..., 1]
    assert torch.equal(columns.long(), masks[0])


def test_nothing_of_a_hidden_patch_is_seen(
    mae: ViTMAE, images: torch.Tensor, masks: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(mae(images, *masks).predictions["res2"].sum(), images)
    by_patch = patchify(gradient, 8).abs().sum(-1)
    assert by_patch.gather(1, masks[1]).eq(0).all()
    assert by_patch.gather(1, masks[0]).ne(0).all()


def test_predictions_stand_in_the_order_of_hidden_patches(
    mae: ViTMAE, images: torch.Tensor, masks: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ids_keep, ids_masked = masks
    prediction = mae(images, ids_keep, ids_masked).predictions["res2"]
    same = mae(images, ids_keep.flip(1), ids_masked).predictions["res2"]
    turned = mae(images, ids_keep, ids_masked.flip(1)).predictions["res2"]
    torch.testing.assert_close(same, prediction, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(turned.flip(1), prediction, rtol=1e-4, atol=1e-5)


def test_encoder_and_decoder_know_positions(mae: ViTMAE) -> None:
    out = mae(torch.zeros(1, 2, 64, 64))
    for tokens in (out.features[0].x[0], out.predictions["res2"][0]):
        assert torch.cdist(tokens, tokens).fill_diagonal_(1).min() > 1e-2


def test_every_parameter_of_both_models_learns(
    mae: ViTMAE, images: torch.Tensor, masks: tuple[torch.Tensor, torch.Tensor]
) -> None:
    mae(images, *masks).loss.backward()
    segmenter = ViTSegmenter(TINY, 3)
    segmentation_loss(segmenter(images), torch.randint(0, 3, (2, 64, 80))).backward()
    for model in (mae, segmenter):
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_masks_are_drawn_where_none_are_given(mae: ViTMAE, images: torch.Tensor) -> None:
    out = mae(images)
    assert out.predictions["res2"].shape[1] == out.features[0].x.shape[1] == 40
    assert not torch.equal(mae(images).loss, out.loss)


def test_it_overfits_a_picture(mae: ViTMAE, masks: tuple[torch.Tensor, torch.Tensor]) -> None:
    image = torch.randn(1, 2, 1, 1).expand(1, 2, 64, 80)
    optimiser = torch.optim.AdamW(mae.parameters(), lr=3e-3)
    first = mae(image, masks[0][:1], masks[1][:1]).loss.item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = mae(image, masks[0][:1], masks[1][:1]).loss
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05 * first


@pytest.mark.parametrize("shape", [(64, 64), (70, 93), (65, 128)])
def test_segmenter_takes_any_size(shape: tuple[int, int]) -> None:
    segmenter = ViTSegmenter(TINY, 3).eval()
    logits, auxiliary = segmenter(torch.randn(1, 2, *shape), auxiliary=True)
    assert logits.shape == (1, 3, *shape)
    assert auxiliary == {}


def test_mae_pads_partial_patches(mae: ViTMAE, images: torch.Tensor) -> None:
    masks = draw_masks(draw_keys(2, torch.Generator()), (8, 10), 0.5)
    cropped = images[..., :64, :75]
    padded = F.pad(cropped, (0, 5))
    torch.testing.assert_close(mae(cropped, *masks).loss, mae(padded, *masks).loss)


def test_pretrained_weights_carry_over(mae: ViTMAE, images: torch.Tensor) -> None:
    segmenter = ViTSegmenter.from_pretrained(mae, 3)
    for part in ("encoder", "decoder"):
        carried = getattr(segmenter, part).state_dict()
        for name, tensor in getattr(mae, part).state_dict().items():
            assert torch.equal(carried[name], tensor), name
    ids = torch.arange(80).expand(2, -1)
    pos = positions_of(ids, (8, 10))
    pixels = mae.head(mae.decoder(mae.encoder(patchify(images, 8), pos), pos))
    grey = pixels.unflatten(-1, (64, 2)).mean(-1)
    for index in range(3):
        by_patch = take_tokens(patchify(segmenter(images)[:, [index]], 8), ids)
        torch.testing.assert_close(by_patch, grey, rtol=0, atol=5e-3)
    head = segmenter.head[1]
    assert isinstance(head, nn.Linear)
    by_class = head.weight.unflatten(0, (64, 3))
    assert (by_class[:, 0] - by_class[:, 1]).abs().mean() > 1e-5


def test_layers_are_listed_from_the_image_upwards(mae: ViTMAE) -> None:
    assert mae.encoder.blocks_in_order() == list(mae.encoder.blocks)


def test_positions_differ() -> None:
    pos = positions_of(torch.arange(12), (3, 4))
    embedded = sine_positions(pos, 16)
    assert embedded.shape == (12, 16)
    assert torch.cdist(embedded, embedded).add(torch.eye(12)).min() > 0.1
    torch.testing.assert_close(embedded[1, :8], sine_positions(pos[5], 16)[:8])
    torch.testing.assert_close(embedded[1, 0], torch.tensor(1.0).sin())


def test_arguments_that_do_not_fit_are_refused(mae: ViTMAE, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="takes 2 channel"):
        mae(images[:, :1])
    with pytest.raises(ValueError, match="at least 64 px a side, got 63 x 80"):
        mae(images[..., :63, :])
    with pytest.raises(ValueError, match="floating point"):
        mae(images.to(torch.uint8))
    with pytest.raises(ValueError, match="both ids_keep and ids_masked"):
        mae(images, ids_keep=torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        ViTSegmenter(TINY, 1)
    with pytest.raises(ValueError, match="cannot be split over 5 heads"):
        ViTConfig(width=32, blocks=1, heads=5)
