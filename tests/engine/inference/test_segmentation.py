from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_affmae.config import SegmentConfig
from napari_affmae.data import open_source, window
from napari_affmae.engine import evaluate, load_model, segment
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.events import BandDone, PlaneDone, RunStarted, TileDone
from napari_affmae.engine.inference.blending import Wanted
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.inference.segmentation import normalize_like
from napari_affmae.errors import CheckpointError, DataError, OutOfMemoryError


@pytest.fixture(scope="module")
def config():
    return SegmentConfig(device="cpu", probabilities=True)


def planes_of(events):
    """Collect planes, each with the probabilities of its bands."""
    planes, bands = [], []
    for event in events:
        if isinstance(event, BandDone):
            bands.append(event.probabilities)
        elif isinstance(event, PlaneDone):
            probabilities = None if bands[0] is None else np.concatenate(bands, axis=1)
            facts = vars(event) | {"probabilities": probabilities}
            planes.append(SimpleNamespace(**facts))
            bands = []
    return planes


def test_every_plane_comes_with_labels_and_probabilities(image, finetuned, config):
    events = list(segment(image, finetuned[0], config))
    assert isinstance(events[0], RunStarted)
    planes = planes_of(events)
    assert [plane.plane for plane in planes] == list(range(image.n_planes))
    for plane in planes:
        assert plane.labels.shape == (image.height, image.width)
        assert plane.labels.dtype == np.uint8
        assert plane.probabilities.shape == (4, image.height, image.width)
        np.testing.assert_allclose(plane.probabilities.sum(0), 1, atol=1e-5)
        np.testing.assert_array_equal(plane.labels, plane.probabilities.argmax(0))


def test_progress_counts_tiles_and_time(image, finetuned, config):
    tiles = [e for e in segment(image, finetuned[0], config) if isinstance(e, TileDone)]
    assert [tile.done for tile in tiles[:4]] == [1, 2, 3, 4]
    assert {tile.total for tile in tiles} == {4}
    left = [tile.seconds_left for tile in tiles]
    assert left[0] > 0
    assert left[-1] == 0


def test_finished_rows_come_before_the_plane_does(image, finetuned, config):
    parts, seen = [], []
    for event in segment(image, finetuned[0], config):
        if isinstance(event, BandDone):
            assert event.rows.start == (parts[-1].rows.stop if parts else 0)
            assert event.plane == len(seen)
            parts.append(event)
        elif isinstance(event, PlaneDone):
            assert len(parts) == 2
            labels = np.concatenate([part.labels for part in parts])
            np.testing.assert_array_equal(labels, event.labels)
            probabilities = np.concatenate([part.probabilities for part in parts], axis=1)
            np.testing.assert_array_equal(probabilities.argmax(0), event.labels)
            parts = []
            seen.append(event.plane)
    assert seen == list(range(image.n_planes))


def test_bands_carry_probabilities_only_where_they_are_asked_for(image, finetuned):
    events = segment(window(image, planes=[0]), finetuned[0], SegmentConfig(device="cpu"))
    bands = [event for event in events if isinstance(event, BandDone)]
    assert [band.probabilities for band in bands] == [None, None]


def test_a_window_is_segmented_as_the_whole_is_there(image, finetuned, config):
    """A window of one tile, which is the first tile of the plane."""
    whole = planes_of(segment(image, finetuned[0], config))[3]
    part = window(image, planes=[3], rows=slice(0, 64), columns=slice(0, 64))
    (plane,) = planes_of(segment(part, finetuned[0], config))
    assert (plane.plane, plane.planes) == (0, 1)
    ours, theirs = (event.probabilities[:, :10, :10] for event in (plane, whole))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_single_tile_is_what_the_network_says(image, finetuned):
    module, metadata = load_model(finetuned[0])
    part = open_source(image.read(0)[0, :64, :64], axes="YX", name="part")
    pixels = normalize_like(part, metadata).read(0)
    with torch.inference_mode():
        expected = module(torch.from_numpy(pixels)[None]).softmax(1)[0].numpy()
    plane = planes_of(segment(part, finetuned[0], SegmentConfig(device="cpu", probabilities=True)))
    np.testing.assert_allclose(plane[0].probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 30), (64, 65), (300, 70)])
def test_any_size(finetuned, config, shape):
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    source = open_source(pixels, axes="YX", name="odd")
    assert planes_of(segment(source, finetuned[0], config))[0].labels.shape == shape


def test_the_batch_of_tiles_does_not_matter(image, finetuned, config):
    one = planes_of(segment(image, finetuned[0], config))
    many = planes_of(segment(image, finetuned[0], config.model_copy(update={"batch": 3})))
    for ours, theirs in zip(one, many, strict=True):
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)


def test_training_images_are_normalised_by_the_stored_numbers(image, finetuned):
    """A part of the pixels, so that a new fit would give other numbers."""
    metadata = load_model(finetuned[0])[1]
    stored = metadata.normalization.statistics[image.fingerprint()]
    changed = stored.model_copy(update={"mean": (stored.mean[0] + 1,)})
    record = metadata.normalization.model_copy(
        update={"statistics": {image.fingerprint(): changed}}
    )
    ours = normalize_like(image, metadata).read(0)
    shifted = normalize_like(image, metadata.model_copy(update={"normalization": record})).read(0)
    np.testing.assert_allclose(ours - shifted, 1 / stored.std[0], rtol=1e-3)


def test_other_channels_are_an_error(volume, finetuned, config):
    colour = open_source(np.stack([volume[0]] * 3, 1), axes="ZCYX", name="colour")
    with pytest.raises(DataError, match="colour has 3 channels and the model takes 1"):
        next(segment(colour, finetuned[0], config))


def test_a_pretrained_model_cannot_segment(image, pretrained, config):
    with pytest.raises(CheckpointError, match="fine-tune it first"):
        next(segment(image, pretrained[0], config))


def test_tiles_that_are_too_small(image, finetuned, config):
    with pytest.raises(ValueError, match="at least 64"):
        next(segment(image, finetuned[0], config.model_copy(update={"tile": 32})))


def hungry(limit):
    """A hook that runs out of memory above a number of images."""

    def hook(module, inputs):
        if len(inputs[0]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return hook


def test_memory_that_runs_out_halves_the_batch_of_tiles(finetuned):
    module, _ = load_model(finetuned[0])
    tiles = torch.randn(5, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    runtime = Runtime(plan_device("cpu"))
    (expected,) = Predictor(module, runtime, 64, 0.25, 5).tiles(tiles)
    module.register_forward_pre_hook(hungry(2))
    predictor = Predictor(module, runtime, 64, 0.25, 5)
    torch.testing.assert_close(torch.cat(list(predictor.tiles(tiles))), expected)
    assert predictor.batch == 2


def test_memory_that_runs_out_midway_loses_no_tile(image, finetuned):
    """A batch of which a part was added already goes on with the rest."""
    module, metadata = load_model(finetuned[0])
    source, wanted = (
        normalize_like(image, metadata),
        Wanted(np.arange(4, dtype=np.uint8), "float32"),
    )

    def rows(predictor):
        bands = predictor.planes(source, range(6), wanted)
        return np.concatenate([b.probabilities for b in bands if b.labels is not None], 1)

    def predictor(batch):
        return Predictor(module, Runtime(plan_device("cpu")), 64, 0.25, batch)

    expected = rows(predictor(1))
    module.register_forward_pre_hook(hungry(3))
    np.testing.assert_allclose(rows(predictor(8)), expected, atol=1e-5)


def test_a_tile_that_does_not_fit_is_an_error(finetuned):
    module, _ = load_model(finetuned[0])
    module.register_forward_pre_hook(hungry(0))
    predictor = Predictor(module, Runtime(plan_device("cpu")), 64, 0.25, 2)
    with pytest.raises(OutOfMemoryError, match="tile of 64 pixels"):
        list(predictor.tiles(torch.zeros(2, 1, 64, 64)))


def test_evaluation_counts_what_segmentation_says(image, labels, finetuned, config):
    events = []
    scores = evaluate([(image, labels)], finetuned[0], config, events.append)
    planes = planes_of(segment(image, finetuned[0], config))
    predicted = np.stack([plane.labels for plane in planes])
    target = np.stack([labels.read(plane)[0] for plane in range(labels.n_planes)])
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (target, predicted), 1)
    np.testing.assert_array_equal(scores.confusion, expected)
    assert isinstance(events[0], RunStarted)
    assert {event.plane for event in events[1:]} == set(range(6))


def test_evaluation_of_labels_without_class(image, volume, finetuned, config):
    strange = open_source(volume[1] + 7, axes="ZYX", name="strange")
    with pytest.raises(DataError, match=r"values that no class has.*the model.s: write"):
        evaluate([(image, strange)], finetuned[0], config)


def test_evaluation_of_labels_of_another_shape(image, volume, finetuned, config):
    small = open_source(volume[1][:, :40], axes="ZYX", name="small")
    with pytest.raises(DataError, match="must be the same"):
        evaluate([(image, small)], finetuned[0], config)
