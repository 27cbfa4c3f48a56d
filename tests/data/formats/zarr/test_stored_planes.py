"""What a zarr folder does not hold is told from what is empty."""

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.data.checks import check_sources
from napari_affmae.data.discovery import find_pairs
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.formats.zarr import stored_planes
from napari_affmae.data.labels import read_labels
from napari_affmae.errors import UnreadableFileError

KINDS = {
    "2": {"zarr_format": 2},
    "3": {"zarr_format": 3},
    "sharded": {"zarr_format": 3, "shards": (1, 40, 40)},
    "planes": {"zarr_format": 3, "chunks": (1, 640, 720)},
}


@pytest.fixture(params=KINDS)
def written(request, tmp_path, stack):
    """A zarr array in a group, the folder of its chunks, and its pixels."""
    options = {"chunks": (1, 20, 20), **KINDS[request.param]}
    if request.param == "planes":
        stack = np.tile(stack, (1, 16, 13))[:, :640, :720]
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=options.pop("zarr_format"))
    encoding = {"name": "v2" if group.metadata.zarr_format == 2 else "default", "separator": "/"}
    group.create_array("s0", data=stack, chunk_key_encoding=encoding, **options)
    chunks = tmp_path / "a.zarr" / "s0" / ("" if encoding["name"] == "v2" else "c")
    return tmp_path / "a.zarr", chunks, stack


def test_a_plane_that_is_lost_is_named(written, assert_reads):
    path, chunks, stack = written
    source = open_source(path, sparse=False)
    assert_reads(source, stack)
    source.close()
    shutil.rmtree(chunks / "2")
    for part in (slice(None), slice(0, 5)):
        with pytest.raises(UnreadableFileError, match=r"plane 2 of .*a\.zarr: none of its chunks"):
            source.read(2, part, part)
    for plane in (0, 1, 3, 4):
        np.testing.assert_array_equal(source.read(plane)[0], stack[plane])
    assert "none of its chunks" in check_sources([source])[0].message


def test_absent_planes_are_filled_where_that_is_meant(written):
    path, chunks, stack = written
    shutil.rmtree(chunks / "2")
    source = pickle.loads(pickle.dumps(open_source(path, sparse=True)))
    assert not source.read(2).any()
    np.testing.assert_array_equal(source.read(3)[0], stack[3])


def test_absent_planes_are_said_once(written, caplog):
    path, chunks, _ = written
    for plane in "23":
        shutil.rmtree(chunks / plane)
    source = open_source(path)
    for plane in (2, 3, 2):
        assert not source.read(plane).any()
    (record,) = caplog.records
    assert "nothing of plane 2" in record.getMessage()


@pytest.mark.parametrize("sparse", [False, True, None])
def test_a_folder_that_is_away_is_not_zeros(written, sparse):
    path, _, stack = written
    source = open_source(path, sparse=sparse)
    source.read(0)
    path.rename(path.with_suffix(".away"))
    with pytest.raises(UnreadableFileError, match=r"plane 1 of .*a\.zarr: its array .* is gone"):
        source.read(1)
    path.with_suffix(".away").rename(path)
    np.testing.assert_array_equal(source.read(1)[0], stack[1])


def test_a_folder_that_comes_back_while_it_is_read_is_read_again(written, monkeypatch):
    path, _, stack = written
    source = open_source(path)
    source.read(0)
    away = path.with_suffix(".away")
    path.rename(away)
    looked = []

    def is_regular(place):
        looked.append(place)
        if len(looked) == 1:
            away.rename(path)
        return place.is_file()

    monkeypatch.setattr(stored_planes, "is_regular", is_regular)
    np.testing.assert_array_equal(source.read(1)[0], stack[1])
    assert looked


def test_a_plane_that_is_stored_in_part_is_taken_as_it_is(tmp_path, stack, assert_reads):
    """Writers leave out chunks that are all of the fill value."""
    stack[:, :20, 20:] = 0
    zarr.create_array(tmp_path / "a.zarr", data=stack, chunks=(1, 20, 20))
    source = open_source(tmp_path / "a.zarr")
    assert_reads(source, stack)
    assert not source.read(3, slice(0, 9), slice(30, 40)).any()


def test_all_planes_of_a_chunk_are_stored_with_it(tmp_path, stack, assert_reads):
    stack[1:4] = 0
    zarr.create_array(tmp_path / "a.zarr", data=stack, chunks=(2, 20, 20))
    source = open_source(tmp_path / "a.zarr", sparse=False)
    np.testing.assert_array_equal(source.read(1)[0], stack[1])
    with pytest.raises(UnreadableFileError, match="plane 2"):
        source.read(2)


def test_the_axes_that_the_user_names_say_what_a_plane_is(tmp_path, stack):
    zarr.create_array(tmp_path / "a.zarr", data=stack.transpose(1, 2, 0), chunks=(20, 20, 1))
    for chunk in (tmp_path / "a.zarr" / "c").glob("*/*/3"):
        chunk.unlink()
    source = open_source(tmp_path / "a.zarr", axes="YXZ", sparse=False)
    np.testing.assert_array_equal(source.read(2)[0], stack[2])
    with pytest.raises(UnreadableFileError, match="plane 3"):
        source.read(3)


def test_labels_may_have_planes_of_background(tmp_path, stack):
    labels = np.minimum(stack, 1)
    labels[2] = 0
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", stack)
    zarr.create_array(tmp_path / "labels" / "a.zarr", data=labels, chunks=(1, 20, 20))
    ((_, source),) = find_pairs(tmp_path)
    for plane in range(5):
        np.testing.assert_array_equal(read_labels(source, plane), labels[plane])


def test_threads_do_not_take_what_others_miss_for_theirs(written):
    path, chunks, stack = written
    shutil.rmtree(chunks / "2")
    source = open_source(path, sparse=False)

    def read(number):
        plane = number % 5
        try:
            return plane, source.read(plane, slice(0, 40), slice(0, 40))
        except UnreadableFileError:
            return plane, None

    with ThreadPoolExecutor(8) as executor:
        for plane, block in executor.map(read, range(100)):
            assert (block is None) == (plane == 2)
            if block is not None:
                np.testing.assert_array_equal(block[0], stack[plane, :40, :40])
