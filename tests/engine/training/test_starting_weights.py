"""What trainings start from, by name, by path, by default, or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pack_weights import pack
from safetensors.torch import load_file

from napari_affmae.config import QuickConfig
from napari_affmae.data import default_classes, open_source
from napari_affmae.engine import (
    QuickTraining,
    finetune,
    list_runs,
    load_model,
    measure_plan,
    pretrain,
    read_record,
)
from napari_affmae.engine.events import Notice
from napari_affmae.engine.store import starting_weights
from napari_affmae.engine.store.model_files import model_bytes
from napari_affmae.engine.store.registry import list_weights
from napari_affmae.engine.store.starting_weights import find_origin
from napari_affmae.errors import CheckpointError


@pytest.fixture(scope="module")
def packed(pretrained: Any, tmp_path_factory: Any) -> Path:
    """Starting weights made of the tests' pretraining run."""
    target = tmp_path_factory.mktemp("weights") / "em-tiny.safetensors"
    pack(pretrained[0], target)
    return target


@pytest.fixture
def shipped(packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """They come with the program."""
    monkeypatch.setattr(starting_weights, "WEIGHTS", packed.parent)
    return packed


@pytest.fixture
def none_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting_weights, "WEIGHTS", tmp_path / "nowhere")


@pytest.fixture
def colour(volume):
    return open_source(np.stack([volume[0]] * 3, 1), axes="ZCYX", name="colour")


def told(events):
    return [event.message for event in events if isinstance(event, Notice)]


def test_packed_weights_are_those_of_the_run_in_half_precision(packed, pretrained):
    run, _ = pretrained
    stored, whole = load_file(packed), load_file(run / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    module, metadata = load_model(packed)
    for name, value in module.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-6)
    assert packed.stat().st_size < 0.55 * (run / "model.safetensors").stat().st_size
    # Images of other users are scaled by their own statistics.
    assert not metadata.normalization.statistics
    assert metadata.training["crops"] == 2 * metadata.training["steps"]
    assert metadata.training["sources"] == ["volume"]


def test_a_model_file_is_packed_to_the_same(packed, pretrained, tmp_path):
    again = tmp_path / "em-tiny.safetensors"
    pack(pretrained[0] / "model.safetensors", again, batch=2)
    assert again.read_bytes() == packed.read_bytes()


def test_only_pretrained_networks_are_packed(finetuned, tmp_path):
    with pytest.raises(ValueError, match="no pretraining"):
        pack(finetuned[0], tmp_path / "em.safetensors")


def test_weights_beyond_half_precision_are_refused(pretrained, tmp_path, monkeypatch):
    module, metadata = load_model(pretrained[0])
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] = 1e5
    monkeypatch.setattr("pack_weights.load_model", lambda _: (module, metadata))
    with pytest.raises(ValueError, match="too large for half precision"):
        pack(pretrained[0], tmp_path / "em.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_is_shipped_is_listed_by_what_lies_in_the_folder(shipped):
    (weights,) = list_weights()
    assert (weights.name, weights.kind, weights.path) == ("em-tiny", "weights", shipped)
    assert (weights.preset, weights.in_channels, weights.sources) == ("nano", 1, ("volume",))
    assert weights.crops == 2 * weights.steps


@pytest.mark.parametrize("start", ["em-tiny", "auto"])
def test_a_name_or_the_default_finds_them(shipped, start):
    origin = find_origin(start, "nano", 1)
    assert (origin.path, origin.name) == (shipped, "em-tiny")
    assert "it starts from em-tiny" in origin.words


@pytest.mark.parametrize(
    ("size", "channels", "why"),
    [
        ("small", 1, "no weights of the size small come with this program, only em-tiny"),
        ("nano", 3, "em-tiny takes 1 channel, and the images have 3"),
    ],
)
def test_the_default_says_why_it_starts_from_nothing(shipped, size, channels, why):
    origin = find_origin("auto", size, channels)
    assert origin.path is None
    assert origin.words == f"it starts from nothing learned (random weights): {why}"


def test_an_installation_without_weights_says_so(none_shipped):
    assert "no weights come with this installation" in find_origin("auto", "nano", 1).words
    with pytest.raises(CheckpointError, match="none do"):
        find_origin("em-nano", "nano", 1)


def test_what_is_nowhere_is_refused_with_what_there_is(shipped, tmp_path):
    for unknown in ("em-tinny", tmp_path / "run"):
        with pytest.raises(CheckpointError, match=r"nothing to start from at .*\(em-tiny\)"):
            find_origin(unknown, "nano", 1)


def test_a_path_is_not_taken_for_a_name(shipped, pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "em-tiny").symlink_to(pretrained[0])
    assert find_origin("em-tiny", "nano", 1).path == shipped
    origin = find_origin(Path("em-tiny"), "nano", 1)
    assert origin.path == Path("em-tiny")
    assert origin.name == str(tmp_path / "em-tiny")


@pytest.fixture
def blind(pretrained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights that come with the program and see no pixel, so that any step makes them better."""
    module, metadata = load_model(pretrained[0])
    with torch.no_grad():
        next(module.encoder.patch_embedding.parameters()).zero_()
    target = tmp_path / "weights" / "em-tiny.safetensors"
    target.parent.mkdir()
    target.write_bytes(model_bytes(module, metadata))
    monkeypatch.setattr(starting_weights, "WEIGHTS", target.parent)
    return target


def test_a_run_that_the_probe_finds_better_is_taken_in_their_place(
    tmp_path, image, labels, pretrain_config, finetune_config, blind
):
    pairs, runs = [(image, labels)], tmp_path / "runs"
    same = {"learning_rate": 1e-12, "min_learning_rate": 0.0}
    for name, changes in (("better", {}), ("same", same)):
        config = pretrain_config.model_copy(update=changes)
        list(pretrain([image], config, runs / name, start="em-tiny", labelled=pairs))
    probes = {run.name: run.probe for run in list_runs(runs)}
    assert probes["better"].start == probes["same"].start < probes["better"].end
    one = finetune_config.model_copy(update={"steps": 1})
    # The newest run is no better than what it started from.
    events = list(finetune(pairs, one, runs / "labels"))
    assert read_record(runs / "labels")["pretrained"] == str(runs / "better")
    (said,) = [message for message in told(events) if "it starts from" in message]
    assert "labels say that its features are better than those of em-tiny (probe 0." in said
    # What lies in another folder is not known of.
    elsewhere = list(finetune(pairs, one, tmp_path / "elsewhere" / "run"))
    assert any("it starts from em-tiny" in message for message in told(elsewhere))


def test_pretraining_goes_on_from_them_and_says_so(tmp_path, image, pretrain_config, shipped):
    config = pretrain_config.model_copy(
        update={"steps": 1, "learning_rate": 1e-12, "min_learning_rate": 0.0}
    )
    run = tmp_path / "run"
    events = list(pretrain([image], config, run))
    assert any("starts from em-tiny" in message for message in told(events))
    assert read_record(run)["start"] == "em-tiny"
    ours, theirs = load_model(run)[0].state_dict(), load_model(shipped)[0].state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=0)
    (summary,) = list_runs(tmp_path)
    assert summary.pretrained == "em-tiny"


def test_without_them_it_starts_from_random_weights(tmp_path, image, pretrain_config, shipped):
    config = pretrain_config.model_copy(update={"steps": 1})
    events = list(pretrain([image], config, tmp_path, start=None))
    assert "it starts from nothing learned (random weights)" in told(events)
    assert read_record(tmp_path)["start"] is None


def test_a_run_that_is_resumed_before_its_first_step_finds_them_by_name(
    tmp_path, image, labels, finetune_config, shipped
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(finetune([(image, labels)], finetune_config, whole, pretrained="em-tiny"))
    events = finetune([(image, labels)], finetune_config, parts, pretrained="em-tiny")
    next(events)
    events.close()
    assert read_record(parts)["pretrained"] == "em-tiny"
    resumed = list(finetune([(image, labels)], finetune_config, parts, resume=True))
    assert not any("starts from" in message for message in told(resumed))
    ours, theirs = (load_file(run / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_other_channels_are_an_error_where_they_were_asked_for(
    tmp_path, colour, labels, finetune_config, shipped
):
    config = finetune_config.model_copy(update={"in_channels": 3, "steps": 1})
    pairs = [(colour, labels)]
    with pytest.raises(CheckpointError, match="takes 1 channels and the images have 3"):
        list(finetune(pairs, config, tmp_path / "asked", pretrained="em-tiny"))
    events = list(finetune(pairs, config, tmp_path / "default"))
    assert any("em-tiny takes 1 channel, and the images have 3" in text for text in told(events))
    assert read_record(tmp_path / "default")["pretrained"] is None


def test_another_size_starts_from_nothing(tmp_path, pretrain_config, shipped):
    small = pretrain_config.model_copy(update={"preset": "small"})
    by_default, named = (
        list(measure_plan(small, pretrained=start))[-1] for start in ("auto", "em-tiny")
    )
    assert by_default.parameters > 10 * named.parameters
    assert "which may add little to em-tiny; pretraining begins to help" in named.advice
    assert "add little" not in by_default.advice


def test_quick_training_takes_their_features(image, shipped, colour):
    classes = default_classes([1, 2])
    training = QuickTraining("auto", [image], classes, QuickConfig(device="cpu"))
    assert not training.notes
    encoder = load_model(shipped)[0].encoder.state_dict()
    for name, value in training._module.encoder.state_dict().items():
        assert torch.equal(value, encoder[name]), name
    training = QuickTraining("auto", [colour], classes, QuickConfig(device="cpu"))
    assert "em-tiny takes 1 channel" in training.notes[0]
