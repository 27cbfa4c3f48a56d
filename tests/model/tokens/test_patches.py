"""Patches keep every pixel, in the documented order."""

import pytest
import torch

from napari_affmae.model.tokens.patches import pad_to_patches, patchify, take_tokens, unpatchify


def test_order_is_row_column_channel() -> None:
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    for token, (row, column) in enumerate((r, c) for r in (0, 2) for c in (0, 2, 4)):
        expected = [
            int(images[1, channel, row + y, column + x])
            for y in range(2)
            for x in range(2)
            for channel in range(3)
        ]
        assert patches[1, token].tolist() == expected


@pytest.mark.parametrize(("rows", "columns", "channels"), [(1, 1, 1), (3, 2, 1), (2, 5, 4)])
def test_unpatchify_inverts_patchify(rows: int, columns: int, channels: int) -> None:
    images = torch.randn(2, channels, rows * 4, columns * 4)
    patches = patchify(images, 4)
    torch.testing.assert_close(
        unpatchify(patches, (rows, columns), 4, channels), images, rtol=0, atol=0
    )


def test_patchify_takes_non_contiguous_images() -> None:
    images = torch.randn(1, 2, 8, 4).transpose(2, 3)
    torch.testing.assert_close(patchify(images, 4), patchify(images.contiguous(), 4))


def test_padding_is_zero_on_the_right_and_bottom() -> None:
    images = torch.ones(1, 2, 5, 8)
    padded = pad_to_patches(images, 8)
    assert padded.shape == (1, 2, 8, 8)
    assert padded[..., :5, :].eq(1).all()
    assert padded[..., 5:, :].eq(0).all()


def test_whole_patches_are_not_copied() -> None:
    images = torch.ones(1, 1, 16, 8)
    assert pad_to_patches(images, 8) is images


def test_take_tokens_indexes_each_image_by_itself() -> None:
    tokens = torch.randn(2, 5, 3)
    ids = torch.tensor([[4, 0], [1, 1]])
    torch.testing.assert_close(
        take_tokens(tokens, ids),
        torch.stack([tokens[0, [4, 0]], tokens[1, [1, 1]]]),
    )


def test_partial_patches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"30 x 32 pixels cannot be cut into patches of 8"):
        patchify(torch.zeros(1, 1, 30, 32), 8)


@pytest.mark.parametrize("shape", [(1, 5, 16), (1, 6, 15)])
def test_wrong_patches_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(B, 6, 16\)"):
        unpatchify(torch.zeros(shape), (2, 3), 4, 1)
