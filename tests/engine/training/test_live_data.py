"""Labels that are painted, and files that break, while a run trains."""

import time
from typing import Any

import numpy as np
import pytest

from napari_affmae.data import default_classes, open_source
from napari_affmae.data.sources.source import ArraySource
from napari_affmae.engine import finetune, pretrain, read_record
from napari_affmae.engine.events import (
    Notice,
    PoolFilled,
    PreviewReady,
    RunFinished,
    RunStarted,
    StepDone,
    Validated,
)
from napari_affmae.engine.store.records import VALIDATION_PLANES
from napari_affmae.errors import UnreadableFileError


class Painted(ArraySource):
    """Labels that are painted, as in a viewer's layer."""

    def __init__(self, array: Any) -> None:
        super().__init__(array, axes="ZYX", name="painted")
        self.array = array
        self.revisions = [0] * len(array)

    def paint(self, plane: int, rows: slice, value: int) -> None:
        self.array[plane, rows] = value
        self.revisions[plane] += 1

    def revision(self, plane: int) -> int:
        return self.revisions[plane]


class Breaking(ArraySource):
    """Reads well until it is broken."""

    broken = False

    def _fetch(self, index: Any) -> Any:
        if self.broken:
            raise OSError("the disk is gone")
        return super()._fetch(index)


@pytest.fixture
def scribbles(volume):
    """Strokes on planes 0, 3 and 5 of six."""
    labels = np.zeros_like(volume[1])
    for plane in (0, 3, 5):
        labels[plane, 10:14], labels[plane, 40:44] = 1, 2
    return Painted(labels)


@pytest.fixture
def live_config(finetune_config):
    return finetune_config.model_copy(
        update={"classes": default_classes([1, 2, 3]), "ignore_value": 0, "steps": 6}
    )


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


def break_after_a_step(events, image):
    for event in events:
        if isinstance(event, StepDone):
            image.broken = True


def test_only_labelled_planes_are_held_out(tmp_path, image, scribbles, live_config):
    events = list(finetune([(image, scribbles)], live_config, tmp_path))
    assert VALIDATION_PLANES.read(tmp_path, read_record(tmp_path)["validation_planes"]) == [[5]]
    assert not [event for event in of_type(events, Notice) if "no validation" in event.message]
    assert all(np.isfinite(event.mean_iou) for event in of_type(events, Validated))


def test_one_labelled_plane_is_not_split(tmp_path, image, scribbles, live_config):
    scribbles.array[[0, 5]] = 0
    events = list(finetune([(image, scribbles)], live_config, tmp_path))
    assert any("Label a second plane" in event.message for event in of_type(events, Notice))
    assert not of_type(events, Validated)
    assert of_type(events, RunFinished)


def test_what_is_held_out_stays_so_when_a_run_is_resumed(tmp_path, image, scribbles, live_config):
    for event in (events := finetune([(image, scribbles)], live_config, tmp_path)):
        if isinstance(event, StepDone):
            events.close()
    scribbles.array[5], scribbles.array[2, 10:14] = 0, 1
    for event in (events := finetune([(image, scribbles)], live_config, tmp_path, resume=True)):
        if isinstance(event, StepDone) and event.step == 3:
            events.close()
    assert VALIDATION_PLANES.read(tmp_path, read_record(tmp_path)["validation_planes"]) == [[5]]


def test_labels_painted_while_it_trains_are_learned_from(tmp_path, image, scribbles, live_config):
    scribbles.array[5] = scribbles.array[0] = 0
    config = live_config.model_copy(update={"validation": 0.0})
    previews = []
    for event in finetune([(image, scribbles)], config, tmp_path):
        if isinstance(event, PreviewReady):
            previews.append(set(np.unique(event.images["label"]).astype(int)))
        if isinstance(event, StepDone) and event.step == 3:
            scribbles.paint(1, slice(None), 3)
            scribbles.paint(2, slice(50, 60), 9)
    assert previews[0] == {-1, 0, 1}
    assert 2 in previews[1]


def test_values_without_a_class_are_told_once(tmp_path, image, scribbles, live_config):
    notices = []
    for event in finetune([(image, scribbles)], live_config, tmp_path):
        if isinstance(event, StepDone) and event.step == 2:
            for plane in range(6):
                scribbles.paint(plane, slice(50, 60), 9)
        if isinstance(event, Notice) and "painted after the start" in event.message:
            notices.append(event.message)
    assert len(notices) == 1
    assert "[9]" in notices[0]


def test_class_weights_follow(tmp_path, image, scribbles, live_config):
    """A class that is painted over and over weighs less, and its loss with it."""
    losses: dict[bool, list[float]] = {}
    for painting in (False, True):
        labels = Painted(scribbles.array.copy())
        losses[painting] = []
        for event in finetune([(image, labels)], live_config, tmp_path / str(painting)):
            if isinstance(event, StepDone):
                losses[painting].append(event.loss)
                if painting and event.step == 1:
                    labels.paint(1, slice(None), 1)
    assert losses[False][0] == losses[True][0]
    assert losses[False][1:] != losses[True][1:]


def test_an_image_that_breaks_is_left_out(tmp_path, pretrain_config):
    """Before it was read; what was decoded before goes on to be learned from."""
    arrays = np.random.default_rng(0).random((30, 1, 80, 80))
    images = [Breaking(array, name=f"image {i}") for i, array in enumerate(arrays)]
    config = pretrain_config.model_copy(update={"steps": 80, "validation": 0.0})
    events = []
    for event in pretrain(images, config, tmp_path):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 1:
            for image in images[10:]:
                image.broken = True
    assert isinstance(events[-1], RunFinished)
    told = [event for event in of_type(events, Notice) if "from now on" in event.message]
    left_out = {event.source for event in told}
    assert left_out
    assert left_out <= {f"image {i}" for i in range(10, 30)}
    assert len(left_out) == len(told)
    assert "the disk is gone" in told[0].message


class Slow(ArraySource):
    """Takes its time to be read."""

    def _fetch(self, index: Any) -> Any:
        time.sleep(0.2)
        return super()._fetch(index)


def test_a_run_says_how_long_it_waited_for_images(tmp_path, pretrain_config):
    image = Slow(np.random.default_rng(0).random((40, 80, 80)), axes="ZYX", name="slow")
    config = pretrain_config.model_copy(update={"batch": 8, "steps": 12, "validation": 0.0})
    events = list(pretrain([image], config, tmp_path))
    waited = sum(event.seconds_waited for event in of_type(events, StepDone))
    pools = of_type(events, PoolFilled)
    assert waited > 0.1
    assert pools[-1].held <= pools[-1].capacity < pools[-1].total
    assert pools[-1].read > 0


def test_a_run_ends_where_no_image_is_left(tmp_path, pretrain_config):
    images = [Breaking(np.random.default_rng(0).random((9, 80, 80)), name="only")]
    config = pretrain_config.model_copy(update={"steps": 60, "validation": 0.0})
    with pytest.raises(UnreadableFileError, match="the disk is gone"):
        break_after_a_step(pretrain(images, config, tmp_path), images[0])
    assert (tmp_path / "checkpoints").is_dir()


def test_held_out_images_that_break_before_they_are_read(tmp_path, pretrain_config):
    images = [
        Breaking(np.random.default_rng(i).random((80, 80)), name=f"image {i}") for i in range(2)
    ]
    config = pretrain_config.model_copy(update={"validation": 0.5})
    events = []
    for event in pretrain(images, config, tmp_path):
        events.append(event)
        if isinstance(event, RunStarted):
            images[1].broken = True
    assert isinstance(events[-1], RunFinished)
    told = [event for event in of_type(events, Notice) if "from now on" in event.message]
    assert [event.source for event in told] == ["image 1"]


@pytest.mark.parametrize("breaks", ["image", "labels"])
@pytest.mark.parametrize("validating", [False, True])
def test_a_pair_that_breaks_ends_a_fine_tuning(
    tmp_path, volume, finetune_config, breaks, validating
):
    pair = tuple(
        Breaking(array, axes="ZYX", name=name)
        for array, name in zip(volume, ("cells", "drawn"), strict=True)
    )
    broken = pair[("image", "labels").index(breaks)]
    config = finetune_config.model_copy(update={"steps": 12, "validation_steps": 1})
    if validating:
        whole = tuple(ArraySource(array, axes="ZYX") for array in volume)
        events = finetune([whole], config, tmp_path, validation=[pair])
    else:
        events = finetune([pair], config, tmp_path)
    with pytest.raises(UnreadableFileError, match=r"the pair cells and drawn: .*the disk is gone"):
        break_after_a_step(events, broken)
    assert list((tmp_path / "checkpoints").iterdir())


def test_arrays_and_files_have_one_revision(image):
    assert [image.revision(plane) for plane in range(image.n_planes)] == [0] * 6
    assert open_source(np.zeros((4, 4))).revision(0) == 0
