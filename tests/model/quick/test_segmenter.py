import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_affmae.config import ModelConfig
from napari_affmae.model import AFFMAE, QuickSegmenter
from napari_affmae.model.quick.local_features import gaussian_blur, local_channels, local_features

TINY = ModelConfig(
    channels=(8, 16, 16, 32),
    blocks=(1, 1, 1, 1),
    heads=(1, 2, 2, 4),
    decoder_width=16,
    decoder_heads=2,
    decoder_hidden=32,
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return AFFMAE(TINY).eval()


@pytest.fixture
def quick(network):
    torch.manual_seed(1)
    module = QuickSegmenter.from_network(network, 3, hidden=8, smoothness=1.0).eval()
    features = module.features(torch.randn(1, 1, 80, 96))
    module.head.adapt(features.cells.flatten(2)[0].T, features.pixels.flatten(2)[0].T)
    return module


def test_features_are_those_of_the_frozen_network(quick, network):
    images = torch.randn(2, 1, 70, 90)
    features = quick.features(images)
    assert features.cells.shape == (2, quick.cell_channels, 9, 12)
    assert features.pixels.shape == (2, local_channels(1), 70, 90)
    assert not features.cells.requires_grad
    for mine, theirs in ((quick.encoder, network.encoder), (quick.decoder, network.decoder)):
        for name, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], value)
    torch.testing.assert_close(quick(images), quick.classify(features))
    assert quick(images).shape == (2, 3, 70, 90)


def test_only_the_head_trains(quick):
    trained = {name for name, value in quick.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in quick.named_parameters() if name.startswith("head.")}
    quick.train()
    assert quick.head.training
    assert not any(module.training for module in quick.encoder.modules())
    assert not any(module.training for module in quick.decoder.modules())


def test_single_pixels_are_classified_as_in_the_image(quick):
    """Projecting before interpolating, and a pixel by itself, come to the same."""
    features = quick.features(torch.randn(1, 1, 64, 72))
    dense = quick.head.classify(features, 8)[0]
    upsampled = torch.nn.functional.interpolate(features.cells, scale_factor=8, mode="bilinear")
    at = ([5, 40, 63], [0, 33, 71])
    cells, pixels = (maps[0][:, at[0], at[1]].T for maps in (upsampled, features.pixels))
    branches = quick.head(*quick.head.standardise(cells, pixels))
    expected = torch.stack([branch.exp() for branch in branches]).mean(0)
    torch.testing.assert_close(dense[:, at[0], at[1]].T.exp(), expected, atol=1e-5, rtol=1e-4)


def test_classes_that_were_not_painted_are_never_predicted(quick):
    quick.head.learned[1] = False
    probabilities = quick(torch.randn(1, 1, 64, 64)).softmax(1)
    assert probabilities[:, 1].max() == 0
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 64, 64))


def test_features_without_variance_do_not_matter(quick):
    cells = torch.randn(50, quick.cell_channels)
    cells[:, 3:] = 2.0
    quick.head.adapt(cells, torch.zeros(50, quick.pixel_channels))
    assert int(quick.head.projection.any(1).sum()) == 3
    projected, pixels = quick.head.standardise(cells, torch.zeros(50, quick.pixel_channels))
    torch.testing.assert_close(projected[:, :3].std(0), torch.ones(3), atol=0.05, rtol=0)
    assert not pixels.any()


def test_blur_is_that_of_scipy():
    image = np.random.default_rng(0).random((70, 80)).astype(np.float32)
    ours = gaussian_blur(torch.from_numpy(image)[None, None], 2.0)[0, 0]
    theirs = gaussian_filter(image, 2.0, mode="mirror", radius=6)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_local_features_of_a_ramp():
    image = torch.arange(100.0).expand(1, 1, 80, 100)
    features = local_features(image)[0, :, 40, 50]
    assert features[:2].tolist() == pytest.approx([50, 50], abs=1e-3)
    assert float(features[2]) == pytest.approx(1, abs=1e-3)
    assert features[3:5].tolist() == pytest.approx([0, 0], abs=1e-3)
    assert float(features[5]) == pytest.approx(1, abs=0.05)


def test_two_classes_at_least():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        QuickSegmenter(TINY, 1, 8, 0.0)
