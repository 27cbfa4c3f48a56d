import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from napari_affmae.config import FinetuneConfig, LabelClass
from napari_affmae.data import default_classes, open_source
from napari_affmae.engine import finetune, load_model, read_metrics, read_record
from napari_affmae.engine.events import (
    Notice,
    PreviewReady,
    RunFinished,
    StepDone,
    TileDone,
    Validated,
)
from napari_affmae.engine.store.checkpoints import list_checkpoints
from napari_affmae.engine.training.labelled_data import Labelled
from napari_affmae.errors import AffmaeError, CheckpointError, DataError
from napari_affmae.model import AFFSegmenter


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


def run_to_step(events, step):
    for event in events:
        if isinstance(event, StepDone) and event.step == step:
            events.close()


def test_events_of_a_run(finetuned):
    _, events = finetuned
    assert [event.step for event in of_type(events, StepDone)] == [1, 2, 3, 4]
    assert [event.step for event in of_type(events, Validated)] == [2, 4]
    assert of_type(events, TileDone)
    assert set(of_type(events, PreviewReady)[0].images) == {"input", "label", "prediction"}
    validated = of_type(events, Validated)[-1]
    assert set(validated.iou) == {"background", "class 1", "class 2", "class 3"}
    assert 0 <= validated.mean_iou <= 1


def test_the_exported_model_is_the_best(finetuned):
    run, events = finetuned
    best = max(of_type(events, Validated), key=lambda event: event.mean_iou)
    assert best.best
    exported = load_file(run / "model.safetensors")
    checkpoint = load_file(run / "checkpoints" / f"step_{best.step:08d}" / "model.safetensors")
    assert all(np.array_equal(exported[name], checkpoint[name]) for name in checkpoint)
    module, metadata = load_model(run)
    assert isinstance(module, AFFSegmenter)
    assert not module.training
    assert metadata.training["steps"] == best.step
    assert metadata.training["mean_iou"] == pytest.approx(best.mean_iou)
    assert [item.value for item in metadata.classes] == [0, 1, 2, 3]


def test_the_best_checkpoint_stays(tmp_path, image, labels, finetune_config):
    """A later validation that is worse neither replaces nor deletes it."""
    config = finetune_config.model_copy(
        update={"steps": 5, "validation_steps": 1, "checkpoint_minutes": 1e-9}
    )
    events = list(finetune([(image, labels)], config, tmp_path))
    best = [event.step for event in of_type(events, Validated) if event.best][-1]
    scores = [event.mean_iou for event in of_type(events, Validated)]
    assert best == 1 + int(np.argmax(scores))
    assert set(list_checkpoints(tmp_path / "checkpoints")) == {best, 4, 5}
    assert load_model(tmp_path)[1].training["steps"] == best


def test_stop_and_resume_equal_one_run(tmp_path, image, labels, finetune_config, pretrained):
    pairs = [(image, labels)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(finetune(pairs, finetune_config, whole, pretrained=pretrained[0]))
    run_to_step(finetune(pairs, finetune_config, parts, pretrained=pretrained[0]), 2)
    list(finetune(pairs, finetune_config, parts, resume=True))
    last = "checkpoints/step_00000004"
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = load_file(whole / last / name), load_file(parts / last / name)
        for key in theirs:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    # The validation due at step 2, where the run was closed, is made up for.
    ours, theirs = (
        [line for line in read_metrics(run) if line["event"] != "pool"] for run in (whole, parts)
    )
    assert ours == theirs


def test_a_run_stopped_before_its_first_step_starts_from_the_pretrained_weights(
    tmp_path, image, labels, finetune_config, finetuned, pretrained
):
    events = finetune([(image, labels)], finetune_config, tmp_path, pretrained=pretrained[0])
    next(events)
    events.close()
    assert not list_checkpoints(tmp_path / "checkpoints")
    list(finetune([(image, labels)], finetune_config, tmp_path, resume=True))
    ours, theirs = (load_file(run / "model.safetensors") for run in (tmp_path, finetuned[0]))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_pretrained_weights_are_used(tmp_path, image, labels, finetune_config, pretrained):
    config = finetune_config.model_copy(update={"learning_rate": 1e-5})
    events = finetune([(image, labels)], config, tmp_path, pretrained=pretrained[0])
    run_to_step(events, 1)
    # One step at a tiny rate moves the first block by next to nothing.
    name = "encoder.stages.0.blocks.0.mlp.expand.weight"
    before = load_file(pretrained[0] / "model.safetensors")[name]
    after = load_file(tmp_path / "checkpoints/step_00000001/model.safetensors")[name]
    assert np.abs(after - before).max() < 1e-4
    assert read_record(tmp_path)["pretrained"] == str(pretrained[0])


def test_layers_decay_only_from_pretrained_weights(
    tmp_path, image, labels, finetune_config, pretrained
):
    """Adam's steps are as large as the rate, so weights tell which rate they had."""
    config = finetune_config.model_copy(update={"checkpoint_minutes": 1e-9})
    moved = {}
    for name, start in (("random", None), ("pretrained", pretrained[0])):
        run_to_step(finetune([(image, labels)], config, tmp_path / name, pretrained=start), 2)
        first, second = (
            load_file(tmp_path / name / f"checkpoints/step_0000000{step}/model.safetensors")
            for step in (1, 2)
        )
        weights = "encoder.patch_embedding.convolutions.0.weight"
        moved[name] = np.abs(second[weights] - first[weights]).max()
    depth, decay = 6, config.layer_decay
    assert moved["pretrained"] < 2 * decay**depth * moved["random"]


def test_validation_pairs_of_their_own(tmp_path, image, labels, finetune_config):
    events = list(
        finetune([(image, labels)], finetune_config, tmp_path, validation=[(image, labels)])
    )
    planes = {event.plane for event in of_type(events, TileDone)}
    assert planes == set(range(image.n_planes))


def test_without_a_validation_set_the_last_weights_are_kept(tmp_path, volume, finetune_config):
    one = [open_source(array[0], axes="YX", name="one") for array in volume]
    events = list(finetune([tuple(one)], finetune_config, tmp_path))
    assert any("no validation set" in event.message for event in of_type(events, Notice))
    assert not of_type(events, Validated)
    assert load_model(tmp_path)[1].training["steps"] == 4


def test_classes_of_the_settings(tmp_path, image, labels, finetune_config):
    classes = tuple(
        LabelClass(value=value, name=f"name {value}", color="#112233") for value in (1, 0, 2, 3)
    )
    config = finetune_config.model_copy(update={"classes": classes, "steps": 2})
    events = list(finetune([(image, labels)], config, tmp_path))
    assert list(of_type(events, Validated)[0].iou) == ["name 1", "name 0", "name 2", "name 3"]
    assert load_model(tmp_path)[1].classes == classes


def test_pixels_that_are_not_labelled_count_nowhere(tmp_path, image, volume, finetune_config):
    """Where only classes 0 and 1 are labelled, nothing else is in the confusion."""
    scribbles = np.where(volume[1] > 1, 0, volume[1] + 1)
    source = open_source(scribbles, axes="ZYX", name="scribbles")
    config = finetune_config.model_copy(update={"ignore_value": 0})
    events = list(finetune([(image, source)], config, tmp_path))
    assert list(of_type(events, Validated)[0].iou) == ["class 1", "class 2"]
    assert isinstance(events[-1], RunFinished)


def test_a_value_without_class_is_an_error(tmp_path, image, labels, finetune_config):
    classes = tuple(LabelClass(value=v, name=str(v), color="#112233") for v in (0, 1))
    config = finetune_config.model_copy(update={"classes": classes})
    words = "the pair volume and labels: values that no class has: 2"
    with pytest.raises(DataError, match=words):
        list(finetune([(image, labels)], config, tmp_path))


def test_planes_near_those_held_out_are_not_trained_on(finetune_config):
    array = np.random.default_rng(0).integers(0, 2, (20, 16, 16), dtype=np.uint8)
    pair = (open_source(array, axes="ZYX"), open_source(array, axes="ZYX"))
    config = finetune_config.model_copy(update={"validation": 0.2, "validation_gap": 3})
    split = Labelled.of([pair], None, config, default_classes([0, 1]), None)
    assert split.training == [list(range(13))]
    assert split.validation == [list(range(16, 20))]


def test_labels_that_are_no_classes_are_refused_before_the_run(
    tmp_path, image, volume, finetune_config
):
    objects = np.repeat(np.arange(volume[1].size // 8) % 70, 8).reshape(volume[1].shape)
    cases = {
        "numbered objects": objects,
        "swapped": volume[0],
        "at least 0, found -1": volume[1].astype(int) - 1,
        "they must be the same": volume[1][:1],
    }
    for words, array in cases.items():
        source = open_source(array, axes="ZYX", name="wrong")
        with pytest.raises(DataError, match=words) as caught:
            list(finetune([(image, source)] * 4, finetune_config, tmp_path / "run"))
        assert ("and 1 more error" in str(caught.value)) == ("must be" in words)
        assert not (tmp_path / "run" / "run.json").exists()


def test_one_class_is_too_few(tmp_path, image, volume, finetune_config):
    source = open_source(np.zeros_like(volume[1]), axes="ZYX", name="empty")
    with pytest.raises(DataError, match="only 1 class"):
        list(finetune([(image, source)], finetune_config, tmp_path))


def test_a_pretrained_network_of_other_channels_does_not_fit(
    tmp_path, volume, labels, finetune_config, pretrained
):
    colour = open_source(np.stack([volume[0]] * 3, 1), axes="ZCYX", name="colour")
    config = finetune_config.model_copy(update={"in_channels": 3})
    with pytest.raises(CheckpointError, match="takes 1 channels and the images have 3"):
        list(finetune([(colour, labels)], config, tmp_path, pretrained=pretrained[0]))


def test_settings_and_images_of_other_channels(tmp_path, volume, labels, finetune_config):
    colour = open_source(np.stack([volume[0]] * 3, 1), axes="ZCYX", name="colour")
    with pytest.raises(DataError, match="colour has 3 channels"):
        list(finetune([(colour, labels)], finetune_config, tmp_path))


def test_a_fine_tuned_network_can_be_the_start(tmp_path, image, labels, finetuned):
    config = FinetuneConfig(crop=64, batch=2, steps=1, device="cpu")
    events = list(finetune([(image, labels)], config, tmp_path, pretrained=finetuned[0]))
    assert isinstance(events[-1], RunFinished)


def test_a_pretraining_run_is_not_resumed_by_finetuning(image, labels, pretrained):
    with pytest.raises(AffmaeError, match="another kind"):
        list(finetune([(image, labels)], None, pretrained[0], resume=True))


def test_metrics_are_json_without_nan(finetuned):
    text = (finetuned[0] / "metrics.jsonl").read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert {line["event"] for line in lines} == {"pool", "step", "validation"}


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Bright stripes on dark ground: image, labels, and a run that learned them."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(60, 10, (4, 64, 64))
    stripes = np.zeros(pixels.shape, np.uint8)
    stripes[:, :, 24:48] = 1
    pixels[stripes == 1] += 120
    image = open_source(pixels.astype(np.uint8), axes="ZYX", name="stripes")
    labels = open_source(stripes, axes="ZYX", name="stripes labels")
    config = FinetuneConfig(crop=64, batch=4, steps=30, learning_rate=2e-3, device="cpu")
    run = tmp_path_factory.mktemp("halves") / "run"
    return image, labels, run, list(finetune([(image, labels)], config, run, pretrained=None))


def test_learning_on_a_trivial_task(halves):
    assert of_type(halves[3], Validated)[-1].mean_iou > 0.9


def test_weights_that_got_worse_are_not_exported(tmp_path, halves):
    """Training on labels the wrong way round, which the validation pairs are not."""
    image, labels, trained, _ = halves
    wrong = np.stack([1 - labels.read(plane)[0] for plane in range(4)])
    config = FinetuneConfig(
        crop=64, batch=4, steps=9, validation_steps=3, learning_rate=5e-3, device="cpu"
    )
    events = finetune(
        [(image, open_source(wrong, axes="ZYX", name="wrong"))],
        config.model_copy(update={"warmup": 0.9, "checkpoint_minutes": 1e-9}),
        tmp_path,
        validation=[(image, labels)],
        pretrained=trained,
    )
    validated = of_type(list(events), Validated)
    assert [event.best for event in validated] == [True, False, False]
    assert validated[0].mean_iou > validated[-1].mean_iou
    assert load_model(tmp_path)[1].training["steps"] == 3
    assert list_checkpoints(tmp_path / "checkpoints") == [3, 8, 9]
