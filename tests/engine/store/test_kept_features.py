"""Features on disk: what is there can be trusted, and takes no more room than it may."""

import errno
import logging
import os
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae.engine.store import kept_features
from napari_affmae.engine.store.kept_features import KeptFeatures

SHAPE = (1, 4, 16, 16)
BYTES = 32 + 4 * 4 * 16 * 16
PLENTY = 100 * BYTES
Usage = namedtuple("Usage", "total used free")


def key(number: int) -> bytes:
    return bytes([number]) * 32


def values(number: int) -> Any:
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)


def kept_in(folder: Path, most: int = PLENTY) -> KeptFeatures:
    return KeptFeatures(folder, lambda: most)


def fill(kept: KeptFeatures, *numbers: int) -> None:
    """Write arrays, each older than the next."""
    for number in numbers:
        kept.put(key(number), values(number))
        kept.wait()
        if (file := kept._path(key(number))).exists():
            os.utime(file, (0, time.time() - 1000 + number))


def there(folder: Path, *numbers: int) -> list[int]:
    found = kept_in(folder)
    return [number for number in numbers if found.get(key(number), SHAPE) is not None]


def test_what_is_kept_is_there_for_another_process(tmp_path):
    fill(kept_in(tmp_path / "runs" / "features"), 1, 2)
    again = kept_in(tmp_path / "runs" / "features")
    for number in (1, 2):
        found = again.get(key(number), SHAPE)
        np.testing.assert_array_equal(found, values(number))
        assert found is not None
        assert found.flags.writeable
    assert again.get(key(3), SHAPE) is None


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def take_from_elsewhere(path: Path) -> None:
    path.write_bytes(path.with_name(key(2).hex() + ".features").read_bytes())


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)  # type: ignore[attr-defined, unused-ignore] # not on Windows


@pytest.mark.parametrize("spoil", [damage, cut, take_from_elsewhere, link, pipe])
def test_what_cannot_be_trusted_is_told_and_replaced(tmp_path, spoil, caplog):
    if spoil in (link, pipe) and os.name == "nt":
        pytest.skip("Windows has no pipes among files, and few may make links")
    kept = kept_in(tmp_path)
    fill(kept, 1, 2)
    file = tmp_path / f"{key(1).hex()}.features"
    spoil(file)
    with caplog.at_level(logging.WARNING):
        assert kept.get(key(1), SHAPE) is None
    (record,) = caplog.records
    assert str(file) in record.message
    assert "computed again" in record.message
    fill(kept, 1)
    np.testing.assert_array_equal(kept_in(tmp_path).get(key(1), SHAPE), values(1))


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    kept = kept_in(tmp_path, 3 * BYTES)
    (tmp_path / "notes.txt").write_text("mine")
    fill(kept, 1, 2, 3)
    assert kept.get(key(1), SHAPE) is not None  # it is the newest now
    fill(kept, 4)
    assert there(tmp_path, 1, 2, 3, 4) == [1, 3, 4]
    kept_in(tmp_path, 2 * BYTES).tidy()
    assert len(there(tmp_path, 1, 3, 4)) == 2
    kept_in(tmp_path, 0).tidy()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_kept_where_nothing_may_be(tmp_path):
    fill(kept_in(tmp_path / "features", 0), 1)
    assert not (tmp_path / "features").exists()


def test_the_rest_of_a_full_disk_is_left_to_others(tmp_path, monkeypatch, caplog):
    fill(kept_in(tmp_path), 1, 2)
    free = kept_features._LEFT_FREE - BYTES
    monkeypatch.setattr(kept_features.shutil, "disk_usage", lambda _: Usage(2**40, 0, free))
    with caplog.at_level(logging.WARNING):
        fill(kept_in(tmp_path), 3)
    assert there(tmp_path, 1, 2, 3) == [3]
    assert "nearly full" in caplog.text


def test_a_write_that_fails_is_told_once_and_leaves_nothing(tmp_path, monkeypatch, caplog):
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    kept = kept_in(tmp_path)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(os, "fsync", refuse)
        fill(kept, 1, 2)
    assert not list(tmp_path.iterdir())
    (record,) = caplog.records
    assert "not kept on disk" in record.message
    fill(kept, 1)
    assert there(tmp_path, 1) == [1]


def test_what_a_kill_has_left_is_deleted(tmp_path):
    fill(kept_in(tmp_path), 1)
    old, new = (tmp_path / f".affmae-{'0' * 16}-{n * 8}" for n in "ab")
    for file in (old, new):
        file.touch()
    os.utime(old, (0, 0))
    fill(kept_in(tmp_path), 2)
    assert not old.exists()
    assert new.exists()
