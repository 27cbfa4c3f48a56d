"""Links that someone has put where a run writes: nothing behind them changes."""

import shutil
import sys

import pytest

from napari_affmae.engine import delete_run
from napari_affmae.engine.store.checkpoints import (
    clean_leftovers,
    list_checkpoints,
    prune_checkpoints,
    save_checkpoint,
)
from napari_affmae.engine.store.run_folder import RunFolder
from napari_affmae.errors import UnwritableError
from napari_affmae.files import lock_path, remove_leftovers, replace_bytes, temporary_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the right to make links")


@pytest.fixture
def foreign(tmp_path):
    """A folder that holds something that looks like a checkpoint, and a file."""
    folder = tmp_path / "foreign"
    (folder / "step_00000001").mkdir(parents=True)
    (folder / "step_00000001" / "thesis.txt").write_text("mine")
    (folder / "file").write_text("mine")
    return folder


def contents(folder):
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [".run.json.new", ".x.new"])
def test_a_file_is_written_beside_a_planted_link(tmp_path, foreign, name):
    before = contents(foreign)
    (tmp_path / name).symlink_to(foreign / "file")
    replace_bytes(tmp_path / name.removeprefix(".").removesuffix(".new"), b"new")
    assert contents(foreign) == before


def test_a_file_in_the_place_of_a_temporary_one_is_not_followed(tmp_path, foreign, monkeypatch):
    before = contents(foreign)
    (tmp_path / "planted").symlink_to(foreign / "file")
    monkeypatch.setattr("napari_affmae.files.temporary_path", lambda _: tmp_path / "planted")
    with pytest.raises(UnwritableError, match="File exists"):
        replace_bytes(tmp_path / "run.json", b"new")
    assert contents(foreign) == before


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "checkpoints", "previews"])
def test_a_run_whose_parts_are_links_is_refused(tmp_path, foreign, name):
    before = contents(foreign)
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(foreign if "." not in name else foreign / "file")
    with pytest.raises(UnwritableError, match=rf"{name} is a link"):
        RunFolder(run)
    assert contents(foreign) == before


def test_checkpoints_that_are_links_are_deleted_as_links(tmp_path, foreign):
    before = contents(foreign)
    run = tmp_path / "checkpoints"
    save_checkpoint(run, 2, b"model", b"optimizer", {})
    for name in ("step_00000001", ".step_00000002.new", ".step_00000003.old", ".step_4.mine"):
        (run / name).symlink_to(foreign)
    save_checkpoint(run, 2, b"model", b"optimizer", {})
    prune_checkpoints(run, [2])
    clean_leftovers(run)
    assert list_checkpoints(run) == [2]
    assert sorted(path.name for path in run.iterdir()) == [".step_4.mine", "step_00000002"]
    assert contents(foreign) == before


def test_leftovers_of_a_kill_go_and_what_others_made_stays(tmp_path, foreign):
    before = contents(foreign)
    for name in ("run.json", "metrics.jsonl"):
        temporary_path(tmp_path / name).write_text("half")
    temporary_path(tmp_path / "model.safetensors").symlink_to(foreign / "file")
    stays = [temporary_path(tmp_path / "b.tif"), tmp_path / ".affmae-notes", tmp_path / "a.new"]
    for path in stays:
        path.write_text("mine")
    with RunFolder(tmp_path):
        left = [path for path in tmp_path.iterdir() if path not in (foreign, tmp_path / ".lock")]
        assert sorted(left) == sorted(stays)
    assert contents(foreign) == before
    remove_leftovers(tmp_path / "b.tif")
    assert not stays[0].exists()


def test_temporary_names_are_short_and_differ(tmp_path):
    path = tmp_path / ("x" * 251 + ".tif")
    names = {temporary_path(path).name for _ in range(9)} | {lock_path(path).name}
    assert len(names) == 10
    assert max(map(len, names)) < 40
    replace_bytes(path, b"content")
    assert path.read_bytes() == b"content"


def test_a_killed_replacement_does_not_save_a_run_from_being_deleted(tmp_path, pretrained):
    run = tmp_path / "run"
    shutil.copytree(pretrained[0], run)
    temporary_path(run / "run.json").write_text("half")
    temporary_path(run / "previews" / "step_00000004.png").write_text("half")
    delete_run(run)
    assert not run.exists()
