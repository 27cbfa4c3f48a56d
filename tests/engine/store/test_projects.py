"""What was painted, kept beside the runs."""

import numpy as np
import pytest
import zarr

from napari_affmae.data import default_classes
from napari_affmae.engine.store.projects import (
    Project,
    list_projects,
    read_strokes,
    write_project,
    write_strokes,
)
from napari_affmae.errors import CheckpointError, UnwritableError

SHAPE = (3, 300, 500)


@pytest.fixture
def project():
    return Project(
        image="em",
        path=None,
        shape=SHAPE,
        scale=(30.0, 8.0, 8.0),
        units=("nm",) * 3,
        classes=default_classes([1, 2]),
        ignore_value=0,
        start_from=None,
        model=None,
        changed="2026-01-01T00:00:00+00:00",
        pixels=7,
    )


def test_parts_are_written_and_empty_ones_take_no_file(tmp_path, project):
    folder = tmp_path / "painted" / "em"
    expected = np.zeros(SHAPE, np.uint8)
    expected[1, 256:290, 10:40] = 2
    place = (1, slice(256, 512), slice(0, 256))
    write_strokes(folder, SHAPE, np.dtype(np.uint8), [(place, expected[place])])
    write_project(folder, project)
    (kept,) = list_projects(tmp_path)
    assert (kept.folder, kept.project) == (folder, project)
    np.testing.assert_array_equal(read_strokes(folder, project)[:], expected)
    (chunk,) = (path for path in (folder / "labels" / "c").rglob("*") if path.is_file())
    assert chunk == folder / "labels/c/1/1/0"
    write_strokes(folder, SHAPE, np.dtype(np.uint8), [(place, expected[place] * 0)])
    assert not read_strokes(folder, project)[:].any()


def test_labels_of_another_type_take_the_place_of_the_former(tmp_path, project):
    for dtype in (np.uint8, np.int32):
        values = np.full((300, 500), np.iinfo(dtype).max, dtype)
        write_strokes(tmp_path, SHAPE, np.dtype(dtype), [((0, slice(None), slice(None)), values)])
    strokes = read_strokes(tmp_path, project)
    assert strokes[0].max() == np.iinfo(np.int32).max


def test_strokes_that_do_not_fit_are_refused(tmp_path, project):
    with pytest.raises(CheckpointError, match="cannot read the strokes"):
        read_strokes(tmp_path, project)
    zarr.create_array(tmp_path / "labels", shape=(2, 2), dtype="f4")
    with pytest.raises(CheckpointError, match="changed or damaged"):
        read_strokes(tmp_path, project)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableError):
        write_strokes(tmp_path / "file", SHAPE, np.dtype(np.uint8), [])
