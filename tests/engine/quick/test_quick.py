"""Quick training on synthetic images, from painted strokes to segmented planes."""

from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_affmae.config import FinetuneConfig, LabelClass, QuickConfig, SegmentConfig
from napari_affmae.data import ImageSource, LabelEncoder, open_source
from napari_affmae.engine import (
    QuickTraining,
    QuickView,
    evaluate,
    finetune,
    load_model,
    read_metadata,
    segment,
    uncertainty,
)
from napari_affmae.engine.events import PlaneDone, StepDone, TileDone, ViewPredicted
from napari_affmae.engine.quick import strokes
from napari_affmae.engine.quick.features import FeatureStore
from napari_affmae.engine.quick.search import PlaceFound, find_least_certain
from napari_affmae.errors import AffmaeError, CheckpointError, DataError
from napari_affmae.model import QuickSegmenter

CONFIG = QuickConfig(steps=30, hidden=16, device="cpu")
CLASSES = tuple(
    LabelClass(value=value, name=name, color="#123456")
    for value, name in ((1, "dark"), (2, "bright"), (5, "noisy"))
)


@pytest.fixture(scope="module")
def stripes() -> ImageSource:
    """Two planes of a dark, a bright and a noisy stripe."""
    rng = np.random.default_rng(0)
    planes = np.full((2, 100, 150), 0.2)
    planes[:, :, 50:100] = 0.6
    planes[:, :, 100:] = rng.random((2, 100, 50))
    return open_source(planes + 0.02 * rng.random(planes.shape), axes="ZYX", name="stripes")


def truth(columns: slice) -> NDArray[np.int64]:
    return np.repeat([1, 2, 5], 50)[columns]


def painted(*values: int, columns: slice = slice(0, 150)) -> NDArray[np.int64]:
    """Strokes of the given classes along rows 40 to 44."""
    labels = np.zeros((100, 150), np.int64)
    row = truth(slice(0, 150))
    labels[40:44] = np.where(np.isin(row, values), row, 0)
    return labels[:, columns]


def whole(
    training: QuickTraining, source: ImageSource, labels: Any = None, plane: int = 0
) -> QuickView:
    return QuickView(training.normalize(source), plane, slice(0, 100), slice(0, 150), labels)


@pytest.fixture
def training(stripes: ImageSource, pretrained: tuple[Path, list[Any]]) -> QuickTraining:
    return QuickTraining(pretrained[0], [stripes], CLASSES, CONFIG)


def last(events: list[Any]) -> ViewPredicted:
    assert isinstance(events[-1], ViewPredicted)
    return events[-1]


def test_strokes_are_learned_and_features_kept(training, stripes):
    strokes = [whole(training, stripes, painted(1, 2, 5))]
    first = list(training.update(strokes, whole(training, stripes)))
    predicted = last(first)
    assert predicted.labels.dtype == np.uint8
    assert (predicted.labels == truth(slice(0, 150))).mean() > 0.9
    assert predicted.probabilities.shape == (3, 100, 150)
    np.testing.assert_allclose(predicted.probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(predicted.uncertainty, uncertainty(predicted.probabilities))
    assert [event.step for event in first if isinstance(event, StepDone)] == list(range(1, 31))

    def forbidden(key: Any) -> None:
        raise AssertionError(f"computed again: {key}")

    training._store.compute = forbidden  # type: ignore[method-assign, assignment]
    strokes = [whole(training, stripes, np.maximum(strokes[0].labels, painted(1)))]
    second = list(training.update(strokes, whole(training, stripes)))
    assert sum(isinstance(event, StepDone) for event in second) == 10
    assert (last(second).labels == truth(slice(0, 150))).mean() > 0.9


def test_other_planes_and_parts_of_them(training, stripes):
    strokes = [whole(training, stripes, painted(1, 2, 5))]
    full = last(list(training.update(strokes, whole(training, stripes, plane=1))))
    assert (full.labels == truth(slice(0, 150))).mean() > 0.85
    part = QuickView(training.normalize(stripes), 1, slice(33, 45), slice(90, 117))
    shown = last(list(training.predict(part)))
    again = last(list(training.predict(whole(training, stripes, plane=1))))
    np.testing.assert_allclose(
        shown.probabilities, again.probabilities[:, 33:45, 90:117], atol=1e-4
    )


def test_strokes_in_several_views_are_those_of_one(training, stripes, pretrained):
    source = training.normalize(stripes)
    halves = [slice(0, 70), slice(70, 150)]
    views = [QuickView(source, 0, slice(0, 100), c, painted(1, 2, 5)[:, c]) for c in halves]
    events = list(training.update(views, whole(training, stripes)))
    other = QuickTraining(pretrained[0], [stripes], CLASSES, CONFIG)
    same = list(other.update([whole(other, stripes, painted(1, 2, 5))], whole(other, stripes)))
    assert (last(events).labels == last(same).labels).mean() > 0.95


def test_one_class_is_not_enough(training, stripes):
    for values, words in (((), "nothing is painted"), ((2,), "only 'bright' is painted")):
        strokes = [whole(training, stripes, painted(*values))]
        with pytest.raises(DataError, match=words):
            list(training.update(strokes, whole(training, stripes)))
    with pytest.raises(AffmaeError, match="nothing to save"):
        training.save(Path("never"))


def test_the_image_is_looked_at_while_only_one_class_is_painted(training, stripes):
    with pytest.raises(DataError):
        list(training.update([whole(training, stripes, painted(2))], whole(training, stripes)))
    strokes = [whole(training, stripes, painted(1, 2))]
    events = list(training.update(strokes, whole(training, stripes)))
    before = list(takewhile(lambda event: not isinstance(event, StepDone), events))
    # One event a block of strokes, none for a tile.
    assert 0 < len(before) <= 2
    assert isinstance(events[-1], ViewPredicted)


def test_a_class_that_is_painted_later(training, stripes):
    strokes = [whole(training, stripes, painted(1, 2))]
    events = list(training.update(strokes, whole(training, stripes)))
    assert 5 not in last(events).labels
    strokes = [whole(training, stripes, painted(1, 2, 5))]
    events = list(training.update(strokes, whole(training, stripes)))
    assert sum(isinstance(event, StepDone) for event in events) == 30
    assert (last(events).labels == truth(slice(0, 150))).mean() > 0.9


def test_wrong_strokes(training, stripes):
    with pytest.raises(DataError, match=r"plane 0 of the labels of stripes .* 7 \(15000 px\)"):
        next(
            training.update(
                [whole(training, stripes, np.full((100, 150), 7))], whole(training, stripes)
            )
        )
    with pytest.raises(ValueError, match=r"100 x 150 pixels must have its shape, got \(5, 5\)"):
        next(
            training.update(
                [whole(training, stripes, np.ones((5, 5), int))], whole(training, stripes)
            )
        )
    with pytest.raises(ValueError, match="at least one of the 100 x 150"):
        next(
            training.update(
                [], QuickView(training.normalize(stripes), 0, slice(100, 120), slice(0, 9))
            )
        )
    with pytest.raises(ValueError, match="planes 0 to 1, the view is of 2"):
        next(training.update([], whole(training, stripes, plane=2)))


def test_closing_at_any_event_is_safe(training, stripes):
    strokes = [whole(training, stripes, painted(1, 2, 5))]
    for count in (1, 15):
        events = training.update(strokes, whole(training, stripes))
        for _ in range(count):
            next(events)
        events.close()
    rest = list(training.update(strokes, whole(training, stripes)))
    steps = [event for event in rest if isinstance(event, StepDone)]
    assert 10 <= len(steps) < 30
    assert (last(rest).labels == truth(slice(0, 150))).mean() > 0.9


def test_saved_model_segments_as_it_showed(training, stripes, tmp_path):
    strokes = [whole(training, stripes, painted(1, 2, 5))]
    shown = last(list(training.update(strokes, whole(training, stripes))))
    path = training.save(tmp_path / "quick.safetensors")
    assert [item.name for item in tmp_path.iterdir()] == ["quick.safetensors"]
    metadata = read_metadata(path)
    assert (metadata.kind, metadata.quick, metadata.classes) == ("quick", CONFIG, CLASSES)
    module, _ = load_model(path)
    assert isinstance(module, QuickSegmenter)
    config = SegmentConfig(device="cpu")
    planes = [event for event in segment(stripes, path, config) if isinstance(event, PlaneDone)]
    assert len(planes) == 2
    assert (planes[0].labels == shown.labels).mean() > 0.97
    labels = open_source(np.tile(truth(slice(0, 150)), (2, 100, 1)).astype(np.uint8))
    scores = evaluate([(stripes, labels)], path, config)
    assert scores.mean_iou > 0.75


def test_saved_model_goes_on(training, stripes, tmp_path):
    strokes = [whole(training, stripes, painted(1, 2, 5))]
    list(training.update(strokes, whole(training, stripes)))
    path = training.save(tmp_path / "quick.safetensors")
    more = QuickTraining(path, [stripes], CLASSES, CONFIG)
    events = list(more.update([whole(more, stripes, painted(1, 2, 5))], whole(more, stripes)))
    assert sum(isinstance(event, StepDone) for event in events) == 10
    assert last(events).labels.shape == (100, 150)
    other = QuickTraining(path, [stripes], CLASSES[:2], CONFIG)
    with pytest.raises(AffmaeError, match="nothing to save"):
        other.save(tmp_path / "other")


def test_fine_tuning_from_a_quick_model(training, stripes, tmp_path):
    strokes = [whole(training, stripes, painted(1, 2, 5))]
    list(training.update(strokes, whole(training, stripes)))
    path = training.save(tmp_path / "quick.safetensors")
    labels = open_source(np.stack([painted(1, 2, 5)] * 2).astype(np.uint8), axes="ZYX")
    config = FinetuneConfig(
        crop=64, batch=1, steps=1, validation=0, ignore_value=0, device="cpu", learning_rate=1e-9
    )
    list(finetune([(stripes, labels)], config, tmp_path / "run", pretrained=path))
    before, after = load_model(path)[0], load_model(tmp_path / "run")[0]
    for name, value in before.encoder.state_dict().items():
        torch.testing.assert_close(after.encoder.state_dict()[name], value, atol=1e-6, rtol=0)


def test_renamed_classes_are_learned_no_further(training, stripes, tmp_path):
    list(training.update([whole(training, stripes, painted(1, 2))], whole(training, stripes)))
    renamed = [item.model_copy(update={"name": f"{item.name}!"}) for item in training.classes]
    training.rename(renamed)
    assert read_metadata(training.save(tmp_path / "m.safetensors")).classes == tuple(renamed)
    with pytest.raises(ValueError, match="other values need another training"):
        training.rename(renamed[:1])


def test_of_very_many_blocks_some_of_each_class_are_learned(training, stripes, monkeypatch):
    encoder = LabelEncoder(training.classes, 0)
    labels = np.ones((100, 150), np.int64)
    labels[:3, :3] = 2
    view = whole(training, stripes, labels)
    blocks = strokes.painted_blocks([view], encoder, 0)
    monkeypatch.setattr(strokes, "_MOST_BLOCKS", 4)
    assert len(blocks) > 4
    few = strokes.painted_blocks([view], encoder, 0)
    assert len(few) == 4
    assert {int(index) for block in few for index in block.classes} == {0, 1}
    places = [(block.rows.start, block.columns.start) for block in blocks]
    assert all((block.rows.start, block.columns.start) in places for block in few)


def test_without_a_pretrained_network(stripes):
    training = QuickTraining(None, [stripes], CLASSES, CONFIG)
    assert "random weights" in training.notes[0]
    strokes = [whole(training, stripes, painted(1, 2, 5))]
    events = list(training.update(strokes, whole(training, stripes)))
    assert (last(events).labels == truth(slice(0, 150))).mean() > 0.85


def test_images_smaller_than_a_patch_row(pretrained):
    tiny = open_source(np.add.outer(np.arange(20.0), np.arange(30.0)), name="tiny")
    training = QuickTraining(pretrained[0], [tiny], CLASSES[:2], CONFIG)
    labels = np.zeros((20, 30), np.int64)
    labels[:5, :8], labels[15:, 20:] = 1, 2
    view = QuickView(training.normalize(tiny), 0, slice(None), slice(None), labels)
    predicted = last(list(training.update([view], view)))
    assert predicted.labels.shape == (20, 30)
    assert (predicted.labels[:5, :8] == 1).all()


def test_views_larger_than_what_is_kept(training, stripes):
    strokes = [whole(training, stripes, painted(1, 2, 5))]
    kept = last(list(training.update(strokes, whole(training, stripes))))
    training._store = FeatureStore(
        training._module, training._runtime, training._store.tile, capacity=1
    )
    shown = list(training.predict(whole(training, stripes)))
    assert len(training._store._kept) == 1
    np.testing.assert_allclose(last(shown).probabilities, kept.probabilities, atol=1e-5)
    assert sum(isinstance(event, TileDone) for event in shown) > 3


def test_a_changed_image_is_computed_again(training):
    class Edited(type(open_source(np.zeros((70, 70))))):  # type: ignore[misc]
        edits = 0

        def revision(self, plane: int) -> int:
            return self.edits

    source = Edited(np.random.default_rng(0).random((70, 70)), name="edited")
    normalized = training.normalize(source)
    store: FeatureStore = training._store
    region = (normalized, 0, slice(0, 64), slice(0, 64))
    for key in store.missing(*region):
        store.compute(key)
    assert not store.missing(*region)
    source.edits = 1
    assert store.missing(*region)


def test_channels_and_models_that_do_not_fit(stripes, pretrained, tmp_path):
    colour = open_source(np.random.default_rng(0).random((3, 70, 70)), axes="CYX", name="colour")
    with pytest.raises(DataError, match="colour has 3 channels"):
        QuickTraining(pretrained[0], [colour], CLASSES, CONFIG)
    with pytest.raises(DataError, match="no image"):
        QuickTraining(pretrained[0], [], CLASSES, CONFIG)
    with pytest.raises(CheckpointError):
        QuickTraining(tmp_path / "nothing", [stripes], CLASSES, CONFIG)


def test_uncertainty_is_the_share_of_the_largest_entropy():
    probabilities = np.array([[[0.5, 1, 0.9]], [[0.5, 0, 0.1]]], np.float32)
    expected = [[1, 0, -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))]]
    np.testing.assert_allclose(uncertainty(probabilities), expected, atol=1e-6)
    np.testing.assert_allclose(uncertainty(np.full((7, 2, 2), 1 / 7, np.float32)), 1, atol=1e-6)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        uncertainty(np.ones((1, 2, 2), np.float32))


def test_the_least_certain_place_is_found(training: QuickTraining, stripes: ImageSource) -> None:
    view = whole(training, stripes)
    list(training.update([whole(training, stripes, painted(1, 2, 5))], view))
    source = training.normalize(stripes)
    views = [
        QuickView(source, plane, slice(0, 100), columns)
        for plane in (0, 1)
        for columns in (slice(0, 48), slice(30, 130))
    ]
    events = list(find_least_certain(training, views))
    found = events[-1]
    assert isinstance(found, PlaceFound)
    assert [event.done for event in events if isinstance(event, TileDone)] == [1, 2, 3, 4]
    # Within one stripe it is sure; where stripes meet, it is not.
    assert found.number in (1, 3)
    means = [float(last(list(training.predict(view))).uncertainty.mean()) for view in views]
    assert found.uncertainty > max(means)
    with pytest.raises(ValueError, match="at least one"):
        list(find_least_certain(training, []))
