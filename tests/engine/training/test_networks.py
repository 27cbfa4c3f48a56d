"""Pretraining that goes on from weights that were trained before."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from napari_affmae.data import open_source
from napari_affmae.engine import load_model, measure_plan, pretrain, read_record
from napari_affmae.engine.events import PlanMeasured, StepDone
from napari_affmae.engine.store.checkpoints import list_checkpoints
from napari_affmae.errors import CheckpointError
from napari_affmae.model import AFFMAE, preset


def weights_of(run):
    return load_file(run / "model.safetensors")


def test_pretraining_goes_on_from_a_pretrained_network(
    tmp_path, image, pretrain_config, pretrained
):
    # Next to no learning rate, so that the weights stay almost what they were.
    config = pretrain_config.model_copy(
        update={"steps": 1, "learning_rate": 1e-12, "min_learning_rate": 0.0}
    )
    list(pretrain([image], config, tmp_path, start=pretrained[0]))
    before, after = weights_of(pretrained[0]), weights_of(tmp_path)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6, err_msg=name)
    assert read_record(tmp_path)["start"] == str(pretrained[0])
    assert load_model(tmp_path)[1].training["start"] == str(pretrained[0])


def test_the_network_of_the_start_counts_not_the_preset(tmp_path, image, pretrain_config):
    small = pretrain_config.model_copy(update={"steps": 1, "preset": "small"})
    nano = tmp_path / "nano"
    list(pretrain([image], pretrain_config.model_copy(update={"steps": 1}), nano))
    list(pretrain([image], small, tmp_path / "run", start=nano))
    _, metadata = load_model(tmp_path / "run")
    assert metadata.model == preset("nano")
    assert metadata.training["preset"] == "nano"
    measured = list(measure_plan(small, pretrained=nano))[-1]
    assert isinstance(measured, PlanMeasured)
    assert measured.parameters == sum(p.numel() for p in AFFMAE(preset("nano")).parameters())


def test_a_run_stopped_before_its_first_step_still_starts_from_it(
    tmp_path, image, pretrain_config, pretrained
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(pretrain([image], pretrain_config, whole, start=pretrained[0]))
    events = pretrain([image], pretrain_config, parts, start=pretrained[0])
    next(events)
    events.close()
    assert not list_checkpoints(parts / "checkpoints")
    list(pretrain([image], pretrain_config, parts, resume=True))
    ours, theirs = weights_of(whole), weights_of(parts)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_stop_and_resume_equal_one_run(tmp_path, image, pretrain_config, pretrained):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(pretrain([image], pretrain_config, whole, start=pretrained[0]))
    events = pretrain([image], pretrain_config, parts, start=pretrained[0])
    for event in events:
        if isinstance(event, StepDone) and event.step == 2:
            break
    events.close()
    list(pretrain([image], pretrain_config, parts, resume=True))
    ours, theirs = weights_of(whole), weights_of(parts)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_a_segmentation_model_is_no_start(tmp_path, image, pretrain_config, finetuned):
    with pytest.raises(CheckpointError, match="segmentation model"):
        list(pretrain([image], pretrain_config, tmp_path, start=finetuned[0]))


def test_a_network_of_other_channels_is_no_start(tmp_path, volume, pretrain_config, pretrained):
    colour = open_source(np.stack([volume[0]] * 3, 1), axes="ZCYX", name="colour")
    config = pretrain_config.model_copy(update={"in_channels": 3})
    with pytest.raises(CheckpointError, match="takes 1 channels and the images have 3"):
        list(pretrain([colour], config, tmp_path, start=pretrained[0]))
