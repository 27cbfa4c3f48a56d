"""What a run of many images leaves behind does not grow with them, except for one list."""

import json
import shutil

import numpy as np
import pytest

from napari_affmae.data import open_source
from napari_affmae.engine import finetune, list_runs, pretrain, read_metadata, read_record
from napari_affmae.engine.events import Notice, RunFinished, StepDone
from napari_affmae.engine.store.housekeeping import delete_run
from napari_affmae.engine.store.records import DATA
from napari_affmae.errors import CheckpointError

MANY = 150  # more than are fingerprinted


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (MANY, 64, 64), dtype=np.uint8)
    return [open_source(plane, name=f"{n}.tif") for n, plane in enumerate(pixels)]


@pytest.fixture(scope="module")
def stopped(images, pretrain_config, tmp_path_factory):
    """A pretraining of many images that was stopped after a step; look, do not touch."""
    run = tmp_path_factory.mktemp("many") / "run"
    for event in (events := pretrain(images, pretrain_config, run)):
        if isinstance(event, StepDone):
            events.close()
    return run


@pytest.fixture
def run(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def go_on(images, run):
    events = list(pretrain(images, None, run, resume=True))
    assert isinstance(events[-1], RunFinished)
    return [event.message for event in events if isinstance(event, Notice)]


def inline(run, *names):
    """Make the record one of an earlier version, which held its lists itself."""
    record = read_record(run)
    for name in names:
        lines = (run / record[name]["file"]).read_text().splitlines()
        (run / record[name]["file"]).unlink()
        record[name] = [json.loads(line) for line in lines]
    del record["images"], record["sources"]
    (run / "run.json").write_text(json.dumps(record))


def test_the_record_is_small_and_the_list_lies_beside_it(run, images):
    record = read_record(run)
    assert (run / "run.json").stat().st_size < 4000
    assert (record["images"], record["sources"][:2]) == (MANY, ["0.tif", "1.tif"])
    data = DATA.read(run, record["data"])
    assert [item["name"] for item in data] == [image.name for image in images]


def test_a_resumed_run_writes_no_list_again(run, images):
    list_file = run / "run_data.jsonl"
    before = list_file.stat()
    messages = go_on(images, run)
    assert not any("the data are not those" in message for message in messages)
    after = list_file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not list(run.glob("run_data_*"))


def test_other_data_are_told_and_recorded_beside(run, images):
    assert any("the data are not those" in text for text in go_on(images[1:], run))
    record = read_record(run)
    assert record["resumed"][0]["data"]["file"] == "run_data_2.jsonl"
    assert len(DATA.read(run, record["resumed"][0]["data"])) == MANY - 1
    assert len(DATA.read(run, record["data"])) == MANY


def test_runs_of_earlier_versions_go_on(run, images):
    inline(run, "data")
    assert list_runs(run.parent)[0].images == MANY
    assert not any("the data are not those" in message for message in go_on(images, run))
    assert isinstance(read_record(run)["data"], list)


@pytest.mark.parametrize("damage", ["gone", "changed", "no object"])
def test_a_damaged_list_is_named_when_it_is_needed(run, images, damage):
    path = run / "run_data.jsonl"
    if damage == "gone":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(path.read_bytes().replace(b"3.tif", b"4.tif"))
    else:
        record = read_record(run)
        record["data"] = DATA.write(run, [5])
        (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"cannot read .*run_data\.jsonl.*Put a copy"):
        list(pretrain(images[1:], None, run, resume=True))
    assert list_runs(run.parent)[0].problem is None


def test_a_record_cannot_name_a_file_elsewhere(run):
    record = read_record(run)
    record["data"]["file"] = "../run_data.jsonl"
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"run\.json"):
        read_record(run)


def test_lists_of_runs_and_deleting_know_it(run):
    (summary,) = list_runs(run.parent)
    assert (summary.images, len(summary.sources), summary.resumable) == (MANY, 20, True)
    delete_run(run)
    assert not run.exists()


def test_headers_of_models_do_not_grow(tmp_path, images, finetune_config):
    halves = np.zeros((64, 64), np.uint8)
    halves[:, 32:] = 1
    pairs = [(image, open_source(halves, name=f"labels of {image.name}")) for image in images]
    config = finetune_config.model_copy(update={"steps": 1})
    list(finetune(pairs, config, tmp_path / "run"))
    metadata = read_metadata(tmp_path / "run")
    assert len(metadata.normalization.statistics) == 64
    assert (metadata.training["images"], len(metadata.training["sources"])) == (MANY, 20)
    assert (tmp_path / "run" / "run.json").stat().st_size < 25_000
    inline(tmp_path / "run", "data", "validation_planes")
    longer = config.model_copy(update={"steps": 2})
    events = list(finetune(pairs, longer, tmp_path / "run", resume=True))
    assert isinstance(events[-1], RunFinished)
