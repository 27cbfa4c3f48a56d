"""Disks that are full and memory that is used up, for real."""

import json
import sys

import pytest

from napari_affmae.engine import load_model, pretrain
from napari_affmae.engine.events import RunFinished, RunStarted
from napari_affmae.engine.store.checkpoints import list_checkpoints

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's resource limits")


@pytest.mark.parametrize("limit", [100_000, 10_000_000], ids=["model", "optimizer"])
def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, image, start_script, limit):
    run, result = tmp_path / "run", tmp_path / "result.json"
    process = start_script("fill_disk.py", RUN=str(run), LIMIT=limit, RESULT=str(result))
    process.join()
    assert process.exitcode == 0
    words = json.loads(result.read_text())
    assert str(run / "checkpoints" / "step_00000002") in words
    assert "MB are needed" in words
    assert "MB are free" in words
    assert list_checkpoints(run / "checkpoints") == [1]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_00000001"]
    load_model(run)
    events = list(pretrain([image], None, run, resume=True))
    assert next(e for e in events if isinstance(e, RunStarted)).step == 1
    assert isinstance(events[-1], RunFinished)


@pytest.mark.parametrize("relief", [True, False])
def test_memory_that_is_used_up(tmp_path, start_script, relief):
    result = tmp_path / "result.json"
    process = start_script(
        "starve.py", RUN=str(tmp_path / "run"), RELIEF=relief, RESULT=str(result)
    )
    process.join()
    assert process.exitcode == 0
    told = json.loads(result.read_text())
    if relief:
        assert told == [4, 2]
    else:
        assert told[:3] == [4, 2, 1]
        assert "does not fit the memory" in told[3]
