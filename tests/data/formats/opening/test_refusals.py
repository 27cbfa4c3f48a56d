"""What the system refuses is told apart from damaged files."""

import errno
import os
import subprocess
import sys

import h5py
import imageio.v3 as iio
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.data.checks import check_pairs, check_sources
from napari_affmae.data.discovery import find_pairs, find_sources
from napari_affmae.data.formats.files import handles
from napari_affmae.data.formats.files.handles import HandlePool, OpenFile, limit_of_open_files
from napari_affmae.data.formats.opening.recipe import FileRecipe
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.sources.failures import failure
from napari_affmae.errors import (
    FileAccessError,
    SystemLimitError,
    UnreadableFileError,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither limits nor pipes")

# The first limit is what we get, the second how far we may raise it.
_FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[2:])))
from napari_affmae.data.checks import check_sources
from napari_affmae.data.discovery import find_sources
found = find_sources(sys.argv[1])
broken = [item.message for item in check_sources(found.sources) if item.level == "error"]
for source in found.sources:
    source.read(0)
print(len(found.sources), found.skipped, broken, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def write(path, array):
    """Write an image of the kind that the suffix says."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["raw"] = array
    elif path.suffix == ".zarr":
        zarr.create_array(path, data=array, chunks=(1, 20, 20))
    else:
        {".tif": tifffile.imwrite, ".png": iio.imwrite, ".mrc": mrcfile.write}[path.suffix](
            path, array[0] if path.suffix == ".png" else array
        )
    return path


@posix
@pytest.mark.parametrize(("soft", "hard", "after"), [(64, 64, 64), (64, 512, 512)])
def test_more_images_than_a_process_may_have_open_files(tmp_path, stack, soft, hard, after):
    for number in range(150):
        suffix = (".tif", ".h5", ".mrc", ".zarr", ".png")[number % 5]
        write(tmp_path / f"{number}{suffix}", stack)
    run = [sys.executable, "-c", _FEW_FILES, str(tmp_path), str(soft), str(hard)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[0] == f"150 [] [] {after}", done.stderr


def test_too_many_open_files_close_others_and_are_tried_again(monkeypatch):
    monkeypatch.setattr(handles, "_WAITS", (0.0, 0.0))
    pool, closed = HandlePool(), []
    for key in range(4):
        with pool.use(key, lambda: OpenFile(np.zeros(1), close=lambda: closed.append(1))):
            pass
    left = iter([2, 1, 0])

    def action():
        if next(left):
            raise SystemLimitError from OSError(errno.EMFILE, "too many")
        return "done"

    assert pool.with_room(action) == "done"
    assert (len(closed), len(pool)) == (3, 1)


def test_a_small_limit_makes_a_small_pool(monkeypatch):
    monkeypatch.setattr(handles, "limit_of_open_files", lambda: 12)
    pool = HandlePool()
    for key in range(9):
        with pool.use(key, lambda: OpenFile(np.zeros(1))):
            pass
    assert len(pool) == 3


@posix
def test_the_limit_is_never_lowered():
    resource = pytest.importorskip("resource")
    assert limit_of_open_files() >= min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.EMFILE, ""), SystemLimitError, "too many files are open"),
        (OSError(errno.ENFILE, ""), SystemLimitError, "too many files are open"),
        (OSError(errno.ENOMEM, ""), SystemLimitError, "not enough memory"),
        (MemoryError(), SystemLimitError, "not enough memory"),
        (OSError(errno.EACCES, ""), FileAccessError, "Permission denied; ask for the right"),
        (OSError(errno.EIO, ""), FileAccessError, "not damage of the file"),
        (OSError("no TIFF"), UnreadableFileError, "no TIFF"),
        (OSError(errno.ENOENT, "gone"), UnreadableFileError, "gone"),
        (ValueError(), UnreadableFileError, "ValueError"),
    ],
    ids=str,
)
def test_every_error_has_its_class_and_words(error, kind, words):
    wrapped = RuntimeError("decoder")
    wrapped.__cause__ = error
    said = failure(error, "cannot read a.tif")
    assert type(said) is kind
    assert str(said).startswith("cannot read a.tif: ")
    assert words in str(said)
    assert type(failure(wrapped, "cannot read a.tif")) is kind


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.mrc", "a.zarr"])
def test_a_refused_file_is_left_out_as_such(tmp_path, stack, monkeypatch, number, name):
    """As root one may read everything, so the system's answer is made up."""
    path = write(tmp_path / name, stack)
    find_sources(tmp_path)  # Python's own files, such as versions of packages, are read before

    def refuse(*args, **kwargs):
        raise OSError(number, "made up", str(path))

    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(FileAccessError, match=f"{path.name}: {os.strerror(number)}"):
        open_source(path)
    (left_out,) = find_sources(tmp_path).skipped
    assert os.strerror(number) in left_out.reason


def refused(number):
    def read(self):
        raise OSError(number, "made up")

    return read


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_no_image_is_left_out_for_what_the_system_lacks(pages, stack, monkeypatch, number):
    monkeypatch.setattr(handles, "_WAITS", (0.0,))
    source, other = open_source(pages), open_source(stack)
    source.close()
    monkeypatch.setattr("napari_affmae.data.formats.tiff.reader.tifffile.TiffFile", refused(number))
    with pytest.raises(SystemLimitError, match=r"pages\.tif"):
        find_sources(pages.parent)
    with pytest.raises(SystemLimitError, match=r"pages\.tif"):
        check_sources([source])
    with pytest.raises(SystemLimitError, match=r"pages\.tif"):
        check_pairs([(other, source)])


def test_memory_that_runs_out_while_decoding_names_the_file(tmp_path, stack, monkeypatch):
    def decode(self):
        raise MemoryError

    iio.imwrite(tmp_path / "a.png", stack[0])
    source = open_source(tmp_path / "a.png")
    source.close()
    monkeypatch.setattr("napari_affmae.data.formats.single.encoded.PillowImage._decode", decode)
    with pytest.raises(SystemLimitError, match=r"a\.png: there is not enough memory"):
        source.read(0)


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, stack, monkeypatch):
    for folder in ("images", "labels"):
        (tmp_path / folder / "closed").mkdir(parents=True)
        tifffile.imwrite(tmp_path / folder / "a.tif", stack)
    scandir = os.scandir

    def listing(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "made up", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    found = find_sources(tmp_path / "images")
    assert [source.name for source in found.sources] == ["a.tif"]
    assert "closed: Permission denied" in found.skipped[0].reason
    sentences = []
    assert [image.name for image, _ in find_pairs(tmp_path, tell=sentences.append)] == ["a"]
    assert ["closed: Permission denied" in line for line in sentences] == [True, True]
    with pytest.raises(FileAccessError, match="Permission denied"):
        find_sources(tmp_path / "images" / "closed")


def test_a_path_that_the_system_does_not_tell_about(tmp_path, monkeypatch):
    def stat(self, **options):
        raise PermissionError(errno.EACCES, "made up")

    monkeypatch.setattr("pathlib.Path.stat", stat)
    with pytest.raises(FileAccessError, match="Permission denied"):
        FileRecipe.of(str(tmp_path / "a.tif"))
    with pytest.raises(FileAccessError, match="Permission denied"):
        find_sources(tmp_path)


@posix
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.mrc", "a.h5"])
def test_pipes_and_devices_are_not_opened(tmp_path, stack, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / f"device{name}").symlink_to("/dev/zero")
    write(tmp_path / "b.tif", stack)
    (tmp_path / "link.tif").symlink_to(tmp_path / "b.tif")
    with pytest.raises(UnreadableFileError, match="only regular files"):
        open_source(tmp_path / name)
    found = find_sources(tmp_path)
    assert [source.name for source in found.sources] == ["b.tif", "link.tif"]
    assert len(found.skipped) == 2


@posix
def test_a_file_that_became_a_pipe_is_not_waited_for(pages):
    source = open_source(pages)
    pages.unlink()
    os.mkfifo(pages)
    with pytest.raises(UnreadableFileError, match="only regular files"):
        source.read(0)


def test_an_image_is_opened_again_when_there_is_room(pages, monkeypatch):
    tried = []

    def once(self):
        tried.append(1)
        if len(tried) == 1:
            raise SystemLimitError from OSError(errno.EMFILE, "too many")
        return opened(self)

    opened = FileRecipe.open
    monkeypatch.setattr(FileRecipe, "open", once)
    with open_source(pages) as source:
        source.read(0)
    assert len(tried) == 3
