from itertools import pairwise

import numpy as np
import pytest
import torch

from napari_affmae.data import window
from napari_affmae.engine import load_model, read_metadata, surviving_tokens
from napari_affmae.engine.inference.segmentation import normalize_like
from napari_affmae.errors import OutOfMemoryError
from napari_affmae.model.parts.encoder import Encoder


@pytest.fixture(scope="module")
def pixels(image, finetuned):
    part = window(image, planes=[2], rows=slice(4, 76), columns=slice(0, 96))
    return normalize_like(part, read_metadata(finetuned[0])).read(0)


@pytest.fixture(params=["pretrained", "finetuned"])
def model(request):
    return request.getfixturevalue(request.param)[0]


def rows(array):
    return set(map(tuple, array.tolist()))


def test_tokens_thin_out_from_stage_to_stage(model, pixels):
    stages = surviving_tokens(model, pixels, device="cpu")
    assert [len(stage.positions) for stage in stages] == [108, 43, 17, 6]
    ratio = read_metadata(model).model.merge_ratio
    for before, after in pairwise(stages):
        assert rows(after.positions) < rows(before.positions)
        assert len(after.positions) == int(len(before.positions) * ratio)


def test_the_most_important_tokens_survive(model, pixels):
    stages = surviving_tokens(model, pixels, device="cpu")
    assert stages[-1].importance is None
    for before, after in pairwise(stages):
        assert before.importance.shape == (len(before.positions),)
        assert (before.importance > 0).all()
        assert (before.importance < 1).all()
        kept = [position in rows(after.positions) for position in map(tuple, before.positions)]
        assert before.importance[kept].min() >= before.importance[~np.array(kept)].max()


def test_the_first_tokens_are_the_patches(model, pixels):
    (first, *_) = surviving_tokens(model, pixels, device="cpu")
    expected = {(8 * row + 3.5, 8 * column + 3.5) for row in range(9) for column in range(12)}
    assert rows(first.positions) == expected
    assert first.positions.dtype == first.importance.dtype == np.float32


def test_hidden_patches_are_no_tokens(model, pixels):
    ours = surviving_tokens(model, pixels, mask_ratio=0.5, seed=3, device="cpu")
    again = surviving_tokens(model, pixels, mask_ratio=0.5, seed=3, device="cpu")
    other = surviving_tokens(model, pixels, mask_ratio=0.5, seed=4, device="cpu")
    assert len(ours[0].positions) == 54
    np.testing.assert_array_equal(ours[-1].positions, again[-1].positions)
    assert rows(ours[0].positions) != rows(other[0].positions)


def test_they_are_those_of_the_network(finetuned, pixels):
    module, _ = load_model(finetuned[0])
    with torch.inference_mode():
        levels = module.encoder(torch.from_numpy(pixels)[None], (9, 12))
    for level, stage in zip(
        levels, surviving_tokens(finetuned[0], pixels, device="cpu"), strict=True
    ):
        expected = level.pos[0].numpy()[:, ::-1] * 8 + 3.5
        np.testing.assert_array_equal(stage.positions, expected)


def test_images_that_do_not_fit(finetuned, pixels):
    with pytest.raises(ValueError, match="channel"):
        surviving_tokens(finetuned[0], np.concatenate([pixels, pixels]), device="cpu")
    with pytest.raises(ValueError, match="64"):
        surviving_tokens(finetuned[0], pixels[:, :40], device="cpu")


def test_an_image_that_is_too_large(finetuned, pixels, monkeypatch):
    def full(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Encoder, "forward", full)
    with pytest.raises(OutOfMemoryError, match="Take a smaller window, or close"):
        surviving_tokens(finetuned[0], pixels, device="cpu")
