"""Runs and models in a folder: listed, renamed, deleted, exported."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from napari_affmae.engine import (
    delete_run,
    export_model,
    finetune,
    list_runs,
    new_run_path,
    pretrain,
    read_metadata,
    rename_run,
)
from napari_affmae.engine.events import StepDone, Validated
from napari_affmae.engine.store.run_folder import RunFolder
from napari_affmae.errors import AffmaeError, CheckpointError, DataError


@pytest.fixture
def folder(tmp_path, pretrained, finetuned):
    """A pretraining run, a fine-tuning run that started from it, and a model file."""
    runs = tmp_path / "runs"
    shutil.copytree(pretrained[0], runs / "first")
    shutil.copytree(finetuned[0], runs / "second")
    shutil.copy(finetuned[0] / "model.safetensors", runs / "shared.safetensors")
    return runs


def summary(folder, name):
    (found,) = [run for run in list_runs(folder) if run.name == name]
    return found


def test_finished_runs_are_told_in_full(folder, pretrained, finetuned):
    first, second = summary(folder, "first"), summary(folder, "second")
    scores = next(e for e in reversed(finetuned[1]) if isinstance(e, Validated) and e.best)
    last = [e for e in finetuned[1] if isinstance(e, Validated)][-1]
    for run, kind in ((first, "pretrain"), (second, "finetune")):
        assert (run.kind, run.preset, run.steps, run.total_steps) == (kind, "nano", 4, 4)
        assert (run.finished, run.resumable, run.problem) == (True, False, None)
        assert (run.sources, run.in_channels, run.crop) == (("volume",), 1, 64)
        assert datetime.now(UTC) - run.created < timedelta(hours=1)
    assert (first.classes, first.mean_iou, first.iou) == ((), None, {})
    assert (first.pretrained, first.crops) == ("em-nano", 8)
    assert [item.value for item in second.classes] == [0, 1, 2, 3]
    assert second.mean_iou == scores.mean_iou
    assert second.iou == scores.iou
    assert second.loss == last.loss
    assert second.pretrained == str(pretrained[0])


def test_a_model_file_stands_for_its_run(folder):
    run, file = summary(folder, "second"), summary(folder, "shared")
    assert (file.kind, file.path.name, file.problem) == ("model", "shared.safetensors", None)
    assert (file.finished, file.resumable) == (True, False)
    for name in ("classes", "iou", "mean_iou", "preset", "sources", "crop", "pretrained"):
        assert getattr(file, name) == getattr(run, name)


def test_the_newest_comes_first_and_what_is_not_ours_does_not_come(folder):
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("mine")
    shutil.copytree(folder / "second", folder / ".hidden")
    record = json.loads((folder / "first/run.json").read_text())
    record["created"] = "2031-01-01T00:00:00+00:00"
    (folder / "first/run.json").write_text(json.dumps(record))
    runs = list_runs(folder)
    assert runs[0].name == "first"
    assert {run.name for run in runs} == {"first", "second", "shared"}
    assert list_runs(folder / "missing") == []


def test_a_stopped_run_can_be_gone_on_with(tmp_path, image, labels, finetune_config):
    events = finetune([(image, labels)], finetune_config, tmp_path / "run")
    for event in events:
        if isinstance(event, StepDone) and event.step == 1:
            break
    events.close()
    (run,) = list_runs(tmp_path)
    assert (run.finished, run.resumable, run.steps, run.total_steps) == (False, True, 1, 4)
    assert run.mean_iou is None


@pytest.mark.parametrize("existing", [True, False])
def test_a_run_that_never_began_leaves_no_trace(tmp_path, pretrain_config, existing):
    if existing:
        (tmp_path / "run").mkdir()
    with pytest.raises(DataError):
        list(pretrain([], pretrain_config, tmp_path / "run"))
    assert not list_runs(tmp_path)
    assert (tmp_path / "run").exists() == existing


def test_a_finished_run_that_was_made_longer_is_not_finished(folder):
    record = json.loads((folder / "first/run.json").read_text())
    record["config"]["steps"] = 9
    (folder / "first/run.json").write_text(json.dumps(record))
    run = summary(folder, "first")
    assert (run.finished, run.resumable) == (False, True)


def break_record(run):
    (run / "run.json").write_text("{ cut off")


def lose_record(run):
    (run / "run.json").unlink()


def break_state(run):
    (run / "checkpoints/step_00000004/state.json").write_text("")


def break_model(run):
    content = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(content[:50])


def lose_settings(run):
    record = json.loads((run / "run.json").read_text())
    del record["data"]
    (run / "run.json").write_text(json.dumps(record))


def break_log(run):
    (run / "metrics.jsonl").write_text("nonsense\n")


def bar_log(run):
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_record, "run.json"),
        (lose_record, "just starting"),
        (break_state, "state.json"),
        (break_model, "cannot read the model"),
        (lose_settings, "data: Field required"),
        (break_log, "metrics.jsonl"),
        (bar_log, "cannot read the run"),
    ],
)
def test_a_damaged_run_is_listed_with_its_problem_and_can_be_deleted(folder, damage, message):
    damage(folder / "second")
    run = summary(folder, "second")
    assert message in run.problem
    assert not run.resumable
    delete_run(run.path)
    assert {run.name for run in list_runs(folder)} == {"first", "shared"}


def rewrite_training(path, **facts):
    metadata = read_metadata(path)
    changed = metadata.model_copy(update={"training": {**metadata.training, **facts}})
    header = {"napari-affmae": changed.model_dump_json()}
    save_file(load_file(path), path, header)


@pytest.mark.parametrize(
    "facts",
    [
        {"date": 5},
        {"date": "soon"},
        {"iou": "high"},
        {"iou": {"membrane": "high"}},
        {"mean_iou": "high"},
        {"steps": "4"},
        {"sources": 3},
        {"sources": [3]},
        {"validation_loss": []},
        {"preset": {}},
    ],
)
def test_an_odd_model_fails_by_itself(folder, facts):
    rewrite_training(folder / "shared.safetensors", **facts)
    rewrite_training(folder / "second/model.safetensors", **facts)
    (name,) = facts
    for odd in ("shared", "second"):
        problem = summary(folder, odd).problem
        assert f"{odd}" in problem
        assert name in problem
    assert summary(folder, "first").problem is None


def test_dates_without_a_time_zone_can_be_sorted(folder):
    rewrite_training(folder / "shared.safetensors", date="2020-01-01T00:00:00")
    assert [run.name for run in list_runs(folder)][-1] == "shared"


def test_foreign_weights_are_listed_with_a_problem_and_stay(folder):
    save_file({"weight": np.zeros(3, np.float32)}, folder / "authors.safetensors")
    run = summary(folder, "authors")
    assert "import-checkpoint" in run.problem
    with pytest.raises(CheckpointError, match="not a model of napari-affmae"):
        delete_run(run.path)
    assert run.path.exists()


def test_a_long_log_is_read_from_its_end(folder, monkeypatch):
    monkeypatch.setattr("napari_affmae.engine.store.registry._TAIL_BYTES", 600)
    run = summary(folder, "second")
    assert run.steps == 4
    assert run.loss is not None


def test_runs_and_models_are_renamed(folder):
    assert rename_run(folder / "second", "mitochondria 2") == folder / "mitochondria 2"
    assert summary(folder, "mitochondria 2").finished
    rename_run(folder / "shared.safetensors", "sent to Ada")
    assert summary(folder, "sent to Ada").path.suffix == ".safetensors"
    assert rename_run(folder / "first", "first") == folder / "first"


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "a\\b", "..", ".x", "x.", "con", "what?", " x", "x" * 300]
)
def test_names_that_are_refused(folder, name):
    with pytest.raises(ValueError, match="name"):
        rename_run(folder / "first", name)
    assert (folder / "first").is_dir()


def test_names_that_are_taken(folder):
    with pytest.raises(AffmaeError, match="already exists"):
        rename_run(folder / "first", "second")
    for run, name in (("first", "shared"), ("shared.safetensors", "first")):
        with pytest.raises(AffmaeError, match="already exists"):
            rename_run(folder / run, name)


def test_a_run_that_is_written_to_stays_as_it_is(folder):
    with RunFolder(folder / "first"):
        for action in (delete_run, lambda run: rename_run(run, "other")):
            with pytest.raises(AffmaeError, match="is being written to"):
                action(folder / "first")
    delete_run(folder / "first")
    assert not (folder / "first").exists()


def test_foreign_files_save_a_run_from_being_deleted(folder):
    run = folder / "first"
    (run / "previews/notes.txt").write_text("mine")
    (run / "model.safetensors.bak").write_text("mine")
    (run / "linked").symlink_to(folder / "second", target_is_directory=True)
    before = sorted(run.rglob("*"))
    with pytest.raises(AffmaeError, match=r"linked, model\.safetensors\.bak, previews/notes\.txt"):
        delete_run(run)
    assert sorted(run.rglob("*")) == before


def test_what_a_kill_left_behind_is_deleted_too(folder):
    run = folder / "first"
    (run / ".run.json.new").write_text("{")
    shutil.copytree(run / "checkpoints/step_00000004", run / "checkpoints/.step_00000005.new")
    shutil.copytree(run / "checkpoints/step_00000004", run / "checkpoints/.step_00000003.old")
    delete_run(run)
    assert not run.exists()


@pytest.mark.parametrize("name", ["notes", "shared.txt", "missing"])
def test_what_is_no_run_is_not_deleted(folder, name):
    (folder / "notes").mkdir()
    (folder / "shared.txt").write_text("mine")
    with pytest.raises(AffmaeError, match="neither the folder of a run nor a model file"):
        delete_run(folder / name)
    assert (folder / "notes").is_dir()
    assert (folder / "shared.txt").exists()


def test_a_model_is_exported(folder, tmp_path):
    target = tmp_path / "new" / "model.safetensors"
    assert export_model(folder / "second", target) == target
    assert read_metadata(target) == read_metadata(folder / "second")
    with pytest.raises(AffmaeError, match="already exists"):
        export_model(folder / "first", target)
    export_model(folder / "first", target, overwrite=True)
    assert read_metadata(target).kind == "pretrain"


def test_exports_that_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="ends in"):
        export_model(folder / "first", tmp_path / "model.pth")
    with pytest.raises(ValueError, match="choose another file"):
        export_model(folder / "first", folder / "first/model.safetensors", overwrite=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no model"):
        export_model(tmp_path / "empty", tmp_path / "x.safetensors")


def test_new_runs_get_readable_names_of_their_own(tmp_path):
    path = new_run_path(tmp_path, "finetune", "mito/cristae: 2?")
    today = datetime.now().astimezone().date().isoformat()
    assert path == tmp_path / f"{today} finetune mito-cristae- 2-"
    assert not path.exists()
    path.mkdir()
    assert new_run_path(tmp_path, "finetune", "mito/cristae: 2?").name == f"{path.name} 2"
    assert new_run_path(tmp_path / "missing", "pretrain").name == f"{today} pretrain"
    assert not new_run_path(tmp_path, "finetune", "ö" * 300).exists()


def test_torch_is_not_loaded(folder):
    code = (
        "import sys; from pathlib import Path; "
        "from napari_affmae.engine import delete_run, export_model, list_runs, rename_run; "
        f"folder = Path({str(folder)!r}); assert len(list_runs(folder)) == 3; "
        "rename_run(folder / 'first', 'x'); "
        "export_model(folder / 'second', folder / 'y.safetensors'); delete_run(folder / 'x'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
