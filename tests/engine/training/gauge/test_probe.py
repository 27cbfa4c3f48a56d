"""Scores of frozen features, which pretraining reports beside its loss."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from napari_affmae.config import IGNORE_INDEX
from napari_affmae.data import open_source
from napari_affmae.engine import list_runs, pretrain, wording
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.events import Notice, StepDone, Validated
from napari_affmae.engine.training.gauge.probe import Probe, _majority
from napari_affmae.engine.training.image_memory import PoolPlan
from napari_affmae.errors import DataError
from napari_affmae.model import AFFMAE, preset

PLACE = PoolPlan(torch.device("cpu"), 2**20)


def score(image, labels, config, ignore_value=None):
    torch.manual_seed(0)
    probe = Probe.of([(image, labels)], config, ignore_value, PLACE)
    module = AFFMAE(preset("nano"))
    return probe.score(module, Runtime(plan_device("cpu")), 4)


def halves_of_grey(value):
    """Planes whose left half is dark, with labels that say so or know nothing of it."""
    random = np.random.default_rng(0)
    image = random.integers(0, 60, (4, 96, 128)).astype(np.uint8)
    image[:, :, 64:] += 150
    labels = np.zeros(image.shape, np.uint8)
    if value == "told":
        labels[:, :, 64:] = 1
    else:
        labels[...] = random.integers(0, 2, (4, 12, 16)).repeat(8, 1).repeat(8, 2)
    return open_source(image, axes="ZYX"), open_source(labels, axes="ZYX")


def test_what_features_tell_scores_high_and_what_they_do_not_low(pretrain_config):
    assert score(*halves_of_grey("told"), pretrain_config) > 0.9
    assert score(*halves_of_grey("random"), pretrain_config) < 0.6


def test_strokes_are_enough(pretrain_config):
    image, _ = halves_of_grey("told")
    strokes = np.full((4, 96, 128), 9, np.uint8)
    strokes[:, 40:43, 10:30] = 0
    strokes[:, 40:43, 90:110] = 1
    assert score(image, open_source(strokes, axes="ZYX"), pretrain_config, ignore_value=9) > 0.9


def test_cells_take_the_class_of_most_labelled_pixels():
    targets = torch.full((1, 10, 16), IGNORE_INDEX)
    targets[0, :8, :3], targets[0, :8, 3:5] = 1, 0
    targets[0, 9, 15] = 2
    expected = [[1, IGNORE_INDEX, IGNORE_INDEX, 2]]
    assert _majority(targets, 8, 3).tolist() == expected


@pytest.fixture(scope="module")
def probed(tmp_path_factory, image, labels, pretrain_config):
    """Folder and events of a run that is measured on labels, otherwise as `pretrained`."""
    run = tmp_path_factory.mktemp("probed") / "run"
    return run, list(pretrain([image], pretrain_config, run, labelled=[(image, labels)]))


def validations(events):
    return [event for event in events if isinstance(event, Validated)]


def test_a_pretraining_reports_its_features_from_before_the_first_step_on(probed):
    run, events = probed
    measured = validations(events)
    assert [event.step for event in measured] == [0, 2, 4]
    assert events.index(measured[0]) < min(
        number for number, event in enumerate(events) if isinstance(event, StepDone)
    )
    assert wording.validated(measured[0]).startswith("before the first step: validation loss")
    for event in measured:
        assert len(event.ranks) == 4
        assert all(rank > 1 for rank in event.ranks)
        assert 0 < event.probe < 1
        assert f"probe {event.probe:.3f}, effective rank" in wording.validated(event)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    recorded = [line for line in lines if line["event"] == "validation"]
    assert [line["probe"] for line in recorded] == [event.probe for event in measured]
    assert [line["ranks"] for line in recorded] == [list(event.ranks) for event in measured]


def test_the_record_says_what_the_probe_was_at_the_start_and_at_the_end(probed):
    run, events = probed
    (summary,) = list_runs(run.parent)
    first, *_, last = validations(events)
    assert (summary.probe.start, summary.probe.end) == (first.probe, last.probe)
    assert summary.probe.margin >= 0.02
    told = [event.message for event in events if isinstance(event, Notice)][-1]
    assert f"from {first.probe:.3f} (em-nano) to {last.probe:.3f}" in told


def test_a_resumed_run_does_not_measure_its_start_again(
    tmp_path, image, labels, pretrain_config, probed
):
    pairs = [(image, labels)]
    events = pretrain([image], pretrain_config, tmp_path / "run", labelled=pairs)
    next(event for event in events if isinstance(event, StepDone) and event.step == 3)
    events.close()
    resumed = list(pretrain([image], None, tmp_path / "run", labelled=pairs, resume=True))
    assert [event.step for event in validations(resumed)] == [4]
    lines = (run / "metrics.jsonl" for run in (tmp_path / "run", probed[0]))
    ours, theirs = ([line for line in text_of(path) if "validation" in line] for path in lines)
    assert ours == theirs
    (summary,), (whole,) = (list_runs(run.parent) for run in (tmp_path / "run", probed[0]))
    assert summary.probe == whole.probe


def text_of(path):
    return path.read_text().splitlines()


def test_a_run_that_is_stopped_before_its_first_step_begins_anew(
    tmp_path, image, labels, pretrain_config
):
    pairs = [(image, labels)]
    events = pretrain([image], pretrain_config, tmp_path, labelled=pairs)
    first = next(event for event in events if isinstance(event, Validated))
    events.close()
    assert not list(tmp_path.glob("checkpoints/step_*"))
    events = pretrain([image], None, tmp_path, labelled=pairs, resume=True)
    assert next(event for event in events if isinstance(event, Validated)) == first
    events.close()
    assert len(text_of(tmp_path / "metrics.jsonl")) == 1


def test_the_probe_changes_nothing_that_is_learned(probed, pretrained):
    ours, theirs = (load_file(run / "model.safetensors") for run in (probed[0], pretrained[0]))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_without_labels_there_is_no_score(pretrained):
    measured = [event for event in pretrained[1] if isinstance(event, Validated)]
    assert all(event.probe is None and len(event.ranks) == 4 for event in measured)
    assert not any("probe" in e.message for e in pretrained[1] if isinstance(e, Notice))


def test_one_labelled_plane_is_too_few(pretrain_config, volume):
    one = [open_source(part[:1], axes="ZYX") for part in volume]
    with pytest.raises(DataError, match="two labelled planes"):
        Probe.of([tuple(one)], pretrain_config, None, PLACE)
