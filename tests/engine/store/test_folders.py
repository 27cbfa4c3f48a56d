"""Files, checkpoints and run folders, without training."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from napari_affmae.config import NormalizationConfig, PretrainConfig
from napari_affmae.data import NormalizationRecord
from napari_affmae.engine.store.checkpoints import (
    CHECKPOINT_FILES,
    checkpoint_path,
    clean_leftovers,
    list_checkpoints,
    prune_checkpoints,
    read_state,
    save_checkpoint,
)
from napari_affmae.engine.store.metadata import model_path
from napari_affmae.engine.store.records import DATA
from napari_affmae.engine.store.run_folder import RunFolder, read_config, read_metrics, read_record
from napari_affmae.engine.store.run_state import Best, RunState
from napari_affmae.engine.store.tensors import read_tensors, tensor_bytes
from napari_affmae.errors import AffmaeError, CheckpointError, DiskFullError, UnwritableError
from napari_affmae.files import replace_bytes, write_errors
from napari_affmae.model import preset

FACTS = {
    "model": preset("nano").model_dump(mode="json"),
    "batch": 4,
    "normalization": NormalizationRecord(config=NormalizationConfig(), statistics={}).model_dump(),
    "data": [{"name": "a.tif", "fingerprint": "01"}],
}
OPTIMIZER = tensor_bytes({"weight/exp_avg": torch.arange(3.0)})


def save(folder, step, state=None):
    return save_checkpoint(folder, step, b"model", OPTIMIZER, state or {"step": step})


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told():
    words = r"cannot write /dev/full: No space left.*free some"
    with pytest.raises(DiskFullError, match=words), write_errors(FULL, 4):
        write_file(FULL)


def write_file(path):
    with path.open("wb", buffering=0) as file:
        file.write(b"abcd")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_quotas_are_full_disks(tmp_path, number):
    path = tmp_path / "not" / "there"
    with pytest.raises(DiskFullError, match="MB are needed"), write_errors(path, 4):
        raise OSError(number, os.strerror(number))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for write in (RunFolder, lambda path: replace_bytes(path, b"new")):
        with pytest.raises(UnwritableError, match=r"cannot write .*another folder") as caught:
            write(file / "runs" / "new")
        assert caught.value.path == file / "runs" / "new"


def test_a_failed_replacement_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    replace_bytes(path, b"old ", b"content")
    with pytest.raises(TypeError):
        replace_bytes(path, b"new", None)
    assert path.read_bytes() == b"old content"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_comes_back(tmp_path):
    path = save(tmp_path, 7, {"step": 7, "elapsed": 1.5})
    assert path == checkpoint_path(tmp_path, 7)
    assert list_checkpoints(tmp_path) == [7]
    assert read_state(path) == {"step": 7, "elapsed": 1.5}
    assert torch.equal(
        read_tensors(path / "optimizer.safetensors")["weight/exp_avg"], torch.arange(3.0)
    )


def test_checkpoints_are_listed_by_number(tmp_path):
    for step in (100_000_000, 20, 3):
        save(tmp_path, step)
    (tmp_path / "something else").mkdir()
    assert list_checkpoints(tmp_path) == [3, 20, 100_000_000]
    assert list_checkpoints(tmp_path / "missing") == []


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 7, {"step": 7, "best": None})
    save(tmp_path, 7, {"step": 7, "best": 7})
    assert read_state(checkpoint_path(tmp_path, 7))["best"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000007"]


def test_a_replacement_half_done_is_undone(tmp_path):
    """Killed after the old one was moved aside, before the new one took its place."""
    path = save(tmp_path, 7)
    path.rename(tmp_path / ".step_00000007.aside")
    clean_leftovers(tmp_path)
    assert list_checkpoints(tmp_path) == [7]
    (tmp_path / ".step_00000007.aside").mkdir()
    (tmp_path / ".step_00000008.new").mkdir()
    clean_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_00000007"]


def test_pruning(tmp_path):
    for step in range(5):
        save(tmp_path, step)
    prune_checkpoints(tmp_path, [1, 4, None])
    assert list_checkpoints(tmp_path) == [1, 4]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_is_hidden_before_it_is_deleted(tmp_path, monkeypatch):
    """Killed in between, its folder would lack files and still be listed."""
    deleted = []
    for step in (1, 2):
        save(tmp_path, step)
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: deleted.append(path.name))
    prune_checkpoints(tmp_path, [2])
    assert deleted == [".step_00000001.old"]
    assert list_checkpoints(tmp_path) == [2]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system which file it is")
def test_a_checkpoint_is_on_the_disk_before_and_after_its_renaming(tmp_path, monkeypatch):
    """Its files and their folder first, then the rename."""
    synced, fsync = [], os.fsync

    def note(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    save(tmp_path / "checkpoints", 7)
    assert synced == [*CHECKPOINT_FILES, ".step_00000007.new", "checkpoints"]


@pytest.mark.parametrize("name", ["state.json", "optimizer.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]"])
def test_damage_is_named(tmp_path, name, content):
    path = save(tmp_path, 7)
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}.*delete the folder .*step_00000007"):
        read_state(path) if name == "state.json" else read_tensors(path / name)


def test_a_best_checkpoint_that_is_gone_is_none(tmp_path):
    """Superseded, pruned, and then the later one was damaged and deleted, as the error says."""
    start, kept = RunState.start(), []
    with RunFolder(tmp_path) as folder:
        for step, best in ((100, 100), (150, 100), (160, 100), (200, 200)):
            state = start.moved(step=step, best=Best(step=best, score=0.5))
            folder.save(step, b"model", OPTIMIZER, state.model_dump(), best)
            kept.append(list_checkpoints(folder.checkpoints))
        assert kept[2:] == [[100, 150, 160], [160, 200]]
        assert RunState.read(folder.latest()).best.step == 200
        shutil.rmtree(folder.latest())
        assert RunState.read(folder.latest()) == start.moved(step=160)
    assert model_path(tmp_path) == folder.latest() / "model.safetensors"


@pytest.mark.parametrize("lost", ["step", "best"])
def test_a_state_that_lacks_something_is_damaged(tmp_path, lost):
    state = RunState.start().model_dump()
    del state[lost]
    path = save(tmp_path, 7, state)
    with pytest.raises(CheckpointError, match=rf"state.json: {lost}: .*delete the folder"):
        RunState.read(path)


def test_a_record_comes_back(tmp_path):
    config = PretrainConfig(steps=3, betas=(0.5, 0.75))
    with RunFolder(tmp_path) as folder:
        assert not folder.holds_run()
        folder.write_record("pretrain", config, FACTS)
        assert folder.holds_run()
    assert read_config(tmp_path) == config
    record = read_record(tmp_path)
    assert (record["kind"], record["batch"]) == ("pretrain", 4)
    assert {"python", "torch", "napari-affmae"} <= record["versions"].keys()


@pytest.mark.parametrize("content", ["", "{", '{"format": 99}', "[]"])
def test_a_strange_record_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        {"config": 0},
        {"created": None},
        {"created": 5},
        {"created": "yesterday"},
        {"created": "0001-01-01T00:00:00"},
        {"kind": ["pretrain"]},
        {"kind": "finetune"},
        {"data": [{}]},
        {"data": {"name": "a"}},
        {"batch": "4"},
        {"batch": 0},
        {"model": {}},
        {"model": {**FACTS["model"], "heads": [0, 1, 1, 1]}},
        {"normalization": None},
        {"classes": [{"value": "one"}]},
        {"resumed": [{"date": 3}]},
        {"validation_planes": [[-1]]},
    ],
)
def test_a_damaged_record_is_named(tmp_path, damage):
    with RunFolder(tmp_path) as folder:
        folder.write_record("pretrain", PretrainConfig(steps=3), FACTS)
        (name,) = damage
        folder.update_record(**damage)
    with pytest.raises(CheckpointError, match=r"cannot read .*run\.json: ") as raised:
        read_record(tmp_path)
    assert "\n" not in str(raised.value)
    record = json.loads((tmp_path / "run.json").read_bytes())
    if name in ("config", "created", "kind", "data", "batch", "model", "normalization"):
        del record[name]
        (tmp_path / "run.json").write_text(json.dumps(record))
        with pytest.raises(CheckpointError, match=rf"cannot read .*run\.json: {name}"):
            read_record(tmp_path)


def test_names_that_are_no_unicode_come_back(tmp_path):
    name = os.fsdecode(b"caf\xe9.tif")
    with RunFolder(tmp_path) as folder:
        facts = {**FACTS, "data": [{"name": name, "fingerprint": "01"}]}
        folder.write_record("pretrain", PretrainConfig(steps=3), facts)
    assert DATA.read(tmp_path, read_record(tmp_path)["data"])[0]["name"] == name


def test_a_killed_beginning_says_what_it_is(tmp_path):
    (tmp_path / ".lock").touch()
    with pytest.raises(CheckpointError, match=r"ended before its first record.*start it anew"):
        read_record(tmp_path)


def test_settings_of_another_version_are_named(tmp_path):
    with RunFolder(tmp_path) as folder:
        folder.write_record("pretrain", PretrainConfig(steps=3), FACTS)
        folder.update_record(config={"strange": 1})
    with pytest.raises(CheckpointError, match="cannot read the settings"):
        read_config(tmp_path)


def test_metrics_are_cut_to_a_step_and_a_torn_line_is_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.append_metrics({"event": "step", "step": step, "loss": 0.5})
        folder.append_metrics({"event": "validation", "step": step, "loss": None})
    with folder.metrics.open("a") as file:
        file.write('{"event": "st')
    assert len(read_metrics(tmp_path)) == 6
    folder.cut_metrics(2, validated=1)
    kept = [(line["event"], line["step"]) for line in read_metrics(tmp_path)]
    assert kept == [("step", 1), ("validation", 1), ("step", 2)]
    folder.append_metrics({"event": "step", "step": 3, "loss": 0.5})
    assert len(read_metrics(tmp_path)) == 4


@pytest.mark.parametrize(
    "line",
    [
        b"{garbled",
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"event": "step"}',
        b'{"event": "step", "step": 2}',
        b'{"event": "step", "step": "2", "loss": 1}',
        b'{"event": "validation", "step": 2, "loss": "low"}',
        b'{"event": "validation", "step": 2, "loss": 1, "mean_iou": "high"}',
    ],
)
def test_a_damaged_line_of_metrics_is_named(tmp_path, line):
    folder = RunFolder(tmp_path)
    folder.append_metrics({"event": "pool", "step": 1})
    with folder.metrics.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(CheckpointError, match=r"line 2 of .*metrics.jsonl.*delete that line"):
        read_metrics(tmp_path)


def test_metrics_that_are_a_folder_are_named(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read .*metrics\.jsonl"):
        read_metrics(tmp_path)


def test_one_process_at_a_time(tmp_path):
    with (
        RunFolder(tmp_path),
        pytest.raises(AffmaeError, match="another process"),
        RunFolder(tmp_path),
    ):
        pass
    with RunFolder(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="needs permissions of Unix")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UnwritableError, match="Permission denied"):
        RunFolder(tmp_path / "run")
