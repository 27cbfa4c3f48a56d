"""Objects of volumes, block by block: as they are on the whole, whatever the blocks are."""

import csv
import hashlib
import os
import signal
import tracemalloc
from contextlib import closing

import numpy as np
import pytest
import tifffile
import zarr
from scipy.ndimage import gaussian_filter
from skimage.measure import regionprops_table
from yaozarrs import validate_zarr_store

from napari_affmae.config import ObjectsConfig, SegmentConfig
from napari_affmae.data import open_source
from napari_affmae.engine import label_objects, measure_objects, objects_to_file
from napari_affmae.engine.events import BlockDone, ObjectsProgress, ObjectsWritten
from napari_affmae.engine.objects import out_of_core
from napari_affmae.engine.objects.shapes import measure_shapes
from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.results.tables import count_rows
from napari_affmae.engine.results.volume import is_complete
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.engine.volumes.segmenting import VolumeSegmenter
from napari_affmae.errors import DataError, UnreadableFileError, UnwritableError

SHAPE = (18, 50, 61)
SIZES = (
    BlockSizes(chunk=64, side=64, depth=32),
    BlockSizes(chunk=8, side=24, depth=7),
    BlockSizes(chunk=25, side=25, depth=4),
)
SMALL = SIZES[1]
CONFIGS = (
    ObjectsConfig(min_size=0),
    ObjectsConfig(min_size=30),
    ObjectsConfig(three_d=True, min_size=30),
    ObjectsConfig(three_d=True, link="overlap", min_size=30),
    ObjectsConfig(three_d=True, link="overlap", link_iou=0.8, min_size=0),
    ObjectsConfig(separation=1.0, min_size=5),
    ObjectsConfig(three_d=True, separation=1.0, min_size=5),
    ObjectsConfig(three_d=True, link="overlap", separation=1.0, min_size=5),
)
SOLID = CONFIGS[2]
VALUES = (1, 2)


def blobs(shape, seed=0):
    """Two classes that touch, in objects that reach through many blocks."""
    random = np.random.default_rng(seed)
    smooth = gaussian_filter(random.standard_normal(shape), (1, 2, 2))
    deviation = smooth.std()
    return ((smooth > 0.3 * deviation).astype(np.uint8) * 2) + (smooth < -0.6 * deviation)


@pytest.fixture(scope="module")
def classes():
    return blobs(SHAPE)


@pytest.fixture(scope="module")
def grey():
    return np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture
def segmented(classes):
    source = open_source(classes, axes="ZYX", name="labels")
    source.pixel_size, source.plane_distance = (4.0, 5.0), 30.0
    return source


def find(labels, target, config=SOLID, values=VALUES, **options):
    return list(objects_to_file(labels, values, config, target, **options))


def read_numbers(target):
    return zarr.open_array(target / "0", mode="r")[:]


def read_table(target):
    with target.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def contents(folder):
    """Hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("sizes", SIZES)
def test_blocks_change_no_number(segmented, classes, tmp_path, config, sizes):
    target = tmp_path / "objects.zarr"
    *_, last = find(segmented, target, config, sizes=sizes)
    expected = label_objects(classes, VALUES, **config.model_dump())
    np.testing.assert_array_equal(read_numbers(target), expected)
    assert last == ObjectsWritten(target, tmp_path / "objects.csv", expected.max())
    spacing = (30.0, 4.0, 5.0) if config.three_d else (4.0, 5.0)
    table, wanted = read_table(target), measure_objects(expected, spacing, "nm", classes)
    for name, column in wanted.items():
        np.testing.assert_allclose(table[name], column, rtol=1e-12, err_msg=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objects.csv", "objects.zarr"]


@pytest.mark.parametrize("sizes", SIZES)
def test_boxes_lengths_and_grey_values_are_those_of_the_whole(segmented, grey, tmp_path, sizes):
    target = tmp_path / "objects.zarr"
    image = open_source(grey, axes="ZYX", name="grey")
    find(segmented, target, sizes=sizes, image=image)
    numbers, table = read_numbers(target), read_table(target)
    names = ("bbox", "intensity_min", "intensity_max")
    found = regionprops_table(numbers, grey, properties=names)
    for axis, name in enumerate(("plane", "row", "column")):
        np.testing.assert_array_equal(table[f"{name}_first"], found[f"bbox-{axis}"])
        np.testing.assert_array_equal(table[f"{name}_last"], found[f"bbox-{axis + 3}"] - 1)
    np.testing.assert_array_equal(table["least_grey"], found["intensity_min"])
    np.testing.assert_array_equal(table["most_grey"], found["intensity_max"])
    shapes = measure_shapes(numbers.astype(np.int32), (30.0, 4.0, 5.0), "nm", grey)
    for name in ("length_nm", "mean_grey", "sd_grey"):
        np.testing.assert_allclose(table[name], shapes[name], rtol=1e-9, err_msg=name)


def test_flat_objects_have_a_width(segmented, tmp_path):
    target = tmp_path / "objects.zarr"
    segmented.pixel_size = (4.0, 4.0)
    find(segmented, target, ObjectsConfig(min_size=5), sizes=SMALL)
    numbers, table = read_numbers(target), read_table(target)
    shapes = [measure_shapes(plane.astype(np.int32), (4.0, 4.0), "nm") for plane in numbers]
    for name in ("length_nm", "width_nm"):
        whole = np.concatenate([shape[name] for shape in shapes])
        np.testing.assert_allclose(table[name], whole, rtol=1e-9, atol=1e-9)


def test_the_table_of_an_image_of_floats_and_several_parts(segmented, grey, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_affmae.engine.objects.joining._ROWS_AT_ONCE", 7)
    image = open_source(grey / 256, axes="ZYX", name="grey")
    find(segmented, tmp_path / "a.zarr", ObjectsConfig(min_size=0), image=image)
    table = read_table(tmp_path / "a.zarr")
    assert len(table["label"]) > 14
    numbers = read_numbers(tmp_path / "a.zarr")
    shapes = [
        measure_shapes(plane.astype(np.int32), image=values)
        for plane, values in zip(numbers, grey / 256, strict=True)
    ]
    for name in ("mean_grey", "sd_grey"):
        whole = np.concatenate([shape[name] for shape in shapes])
        np.testing.assert_allclose(table[name], whole, atol=1e-9)


def test_time_points_are_apart_and_come_first(classes, tmp_path):
    """In the order of OME-Zarr, whatever order the image has."""
    both = np.stack([classes, classes[::-1]])
    target = tmp_path / "objects.zarr"
    find(open_source(both.swapaxes(0, 1), axes="ZTYX", name="labels"), target, sizes=SMALL)
    numbers = read_numbers(target)
    first, second = (label_objects(part, VALUES, **SOLID.model_dump()) for part in both)
    np.testing.assert_array_equal(numbers[0], first)
    np.testing.assert_array_equal(numbers[1], np.where(second, second + first.max(), 0))
    table = read_table(target)
    assert (table["time"] == (table["label"] > first.max())).all()
    with pytest.raises(DataError, match="has time points"):
        find(open_source(classes, axes="TYX", name="labels"), tmp_path / "b.zarr")


def test_a_tiff_has_the_same_numbers(segmented, tmp_path):
    for name in ("a.zarr", "a.tif"):
        find(segmented, tmp_path / name, sizes=SMALL)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "a.tif"), read_numbers(tmp_path / "a.zarr")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.tif", "a.zarr"]


def test_nothing_is_found_in_nothing(tmp_path):
    source = open_source(np.zeros(SHAPE, np.uint8), axes="ZYX", name="nothing")
    *_, last = find(source, tmp_path / "a.zarr", sizes=SMALL)
    assert last.count == 0
    assert not read_numbers(tmp_path / "a.zarr").any()
    assert (tmp_path / "a.csv").read_text().startswith("label,plane,")


def test_the_background_can_be_an_object(segmented, classes, tmp_path):
    find(segmented, tmp_path / "a.zarr", values=(0,), sizes=SMALL)
    expected = label_objects(classes, 0, **SOLID.model_dump())
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.zarr"), expected)


def test_numbers_are_labels_of_ome_zarr_with_a_pyramid(segmented, tmp_path):
    target = tmp_path / "objects.zarr"
    find(segmented, target, sizes=SMALL)
    validate_zarr_store(target)
    group = zarr.open_group(target, mode="r")
    assert "image-label" in group.attrs["ome"]
    assert len(group.attrs["ome"]["multiscales"][0]["datasets"]) > 1
    opened = open_source(target)
    assert (opened.pixel_size, opened.plane_distance) == ((4.0, 5.0), 30.0)
    numbers, smaller = read_numbers(target), zarr.open_array(target / "1", mode="r")[:]
    assert smaller.shape == (18, 25, 31)
    assert set(np.unique(smaller)) <= set(np.unique(numbers))


def test_planes_that_are_linked_cover_each_other(tmp_path):
    """A square that moves by half its side, and then by less than that."""
    classes = np.zeros((3, 12, 30), np.uint8)
    for plane, column in enumerate((2, 7, 9)):
        classes[plane, 1:11, column : column + 10] = 1
    for least, count in ((0.5, 2), (0.3, 1)):
        config = ObjectsConfig(three_d=True, link="overlap", link_iou=least)
        objects = label_objects(classes, 1, **config.model_dump())
        assert objects.max() == count
        assert len(np.unique(objects[1:])) == 2
    with pytest.raises(ValueError, match="objects in 3-D"):
        ObjectsConfig(link="overlap")


def test_a_closed_run_goes_on_and_ends_as_one_that_was_not(segmented, tmp_path):
    whole, target = tmp_path / "whole" / "a.zarr", tmp_path / "a.zarr"
    events = find(segmented, whole, sizes=SMALL)
    progress = [event for event in events if isinstance(event, ObjectsProgress)]
    assert [event.done for event in progress if event.doing != "joining"] == [
        *range(1, progress[0].total + 1)
    ]
    for doing in ("finding", "numbering"):
        with closing(objects_to_file(segmented, VALUES, SOLID, target, sizes=SMALL)) as run:
            done = next(event.done for event in run if event.doing == doing)
    rest = find(segmented, target, sizes=SMALL)
    assert next(event.done for event in rest if event.doing == "numbering") == done + 1
    assert contents(target) == contents(whole)
    assert (tmp_path / "a.csv").read_bytes() == whole.with_suffix(".csv").read_bytes()
    with pytest.raises(UnwritableError, match="is complete"):
        find(segmented, target, sizes=SMALL)
    find(segmented, target, sizes=SMALL, overwrite=True)
    assert is_complete(target)


def test_a_run_that_does_nothing_leaves_nothing(segmented, tmp_path):
    broken = open_source(np.full((3, 20, 20), 0.5, np.float32), axes="ZYX", name="broken")
    for name in ("a.zarr", "a.tif"):
        with pytest.raises(DataError, match="not whole numbers"):
            find(broken, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_other_settings_are_refused_or_begin_anew(segmented, classes, grey, tmp_path):
    target = tmp_path / "a.zarr"
    with closing(objects_to_file(segmented, VALUES, SOLID, target, sizes=SMALL)) as run:
        next(run)
    other = open_source(classes[::-1], axes="ZYX", name="other")
    other.pixel_size, other.plane_distance = segmented.pixel_size, segmented.plane_distance
    image = open_source(grey, axes="ZYX", name="grey")
    flat = ObjectsConfig(min_size=1)
    for source, config, values, options, words in (
        (other, SOLID, VALUES, {}, "another label image"),
        (segmented, flat, VALUES, {}, "other settings"),
        (segmented, SOLID, (1,), {}, "other classes"),
        (segmented, SOLID, VALUES, {"image": image}, "another image for grey values"),
    ):
        with pytest.raises(UnwritableError, match=f"a.zarr was begun with {words};"):
            find(source, target, config, values, sizes=SMALL, **options)
    find(other, target, flat, sizes=SMALL, overwrite=True)
    expected = label_objects(classes[::-1], VALUES, **flat.model_dump())
    np.testing.assert_array_equal(read_numbers(target), expected)


def test_a_kill_just_before_the_end_leaves_nothing_hidden(segmented, tmp_path, monkeypatch):
    target = tmp_path / "objects.tif"
    with monkeypatch.context() as patched:
        patched.setattr(out_of_core, "_tidy", lambda *_: None)
        find(segmented, target)
    assert any(path.name.startswith(".affmae") for path in tmp_path.iterdir())
    written = target.read_bytes()
    *_, last = find(segmented, target)
    assert (target.read_bytes(), last.count) == (written, count_rows(tmp_path / "objects.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objects.csv", "objects.tif"]
    with pytest.raises(UnwritableError, match="is complete"):
        find(segmented, target)


def test_a_file_that_was_to_be_replaced_is_not_taken_for_the_new_one(
    segmented, tmp_path, monkeypatch
):
    target = tmp_path / "objects.tif"
    find(segmented, target)
    old = target.read_bytes()
    config = ObjectsConfig(min_size=50)
    with monkeypatch.context() as patched:  # a kill before the new file has its name
        patched.setattr(out_of_core, "_tidy", lambda *_: None)
        find(segmented, target, config=config, overwrite=True)
        target.write_bytes(old)
        os.utime(target, (1, 1))
    with pytest.raises(UnwritableError, match="is complete"):
        find(segmented, target, config=config)
    find(segmented, target, config=config, overwrite=True)
    assert target.read_bytes() != old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objects.csv", "objects.tif"]


def test_lost_records_are_told(segmented, tmp_path):
    target = tmp_path / "a.zarr"
    with closing(objects_to_file(segmented, VALUES, SOLID, target, sizes=SMALL)) as run:
        next(event for event in run if event.doing == "numbering")
    next(tmp_path.rglob("records/3.npz")).unlink()
    with pytest.raises(UnreadableFileError, match="overwrite the result"):
        find(segmented, target, sizes=SMALL)


def test_unfinished_segmentations_are_refused(finetuned, image, tmp_path):
    model, config = finetuned[0], SegmentConfig(device="cpu")
    segmented = tmp_path / "segmented.zarr"
    volumes = VolumeSegmenter(Origins(model, config), config, sizes=BlockSizes(chunk=16, side=64))
    with closing(volumes.segment(image, segmented)) as events:
        total = next(event.total for event in events if isinstance(event, BlockDone))
    source = open_source(segmented, labels=True)
    words = rf"segmented.zarr is not complete: 1 of its {total} blocks .* command that began it"
    with pytest.raises(DataError, match=words):
        find(source, tmp_path / "objects.zarr", values=(1,))
    with pytest.raises(DataError, match="0 is not complete: 1 of its"):
        find(open_source(segmented / "0", labels=True), tmp_path / "objects.zarr", values=(1,))
    list(volumes.segment(image, segmented))
    *_, last = find(source, tmp_path / "objects.zarr", values=(0, 1, 2, 3))
    assert last.count > 0


def test_images_of_another_shape_are_refused(segmented, grey, tmp_path):
    with pytest.raises(DataError, match="17 planes of 50 x 61 pixels and labels 18"):
        find(segmented, tmp_path / "a.zarr", image=open_source(grey[1:], axes="ZYX", name="grey"))


def test_separating_what_does_not_fit_in_memory_is_refused(tmp_path):
    huge = open_source(np.broadcast_to(np.uint8(1), (10_000,) * 3), axes="ZYX", name="huge")
    config = ObjectsConfig(three_d=True, separation=1)
    with pytest.raises(DataError, match=r"the whole stack at once: about 50000\.0 GB"):
        find(huge, tmp_path / "a.zarr", config)


def test_memory_does_not_grow_with_the_volume(tmp_path):
    """Of as many objects; four times as many planes take a fifth more memory at most."""
    peaks = []
    for planes in (16, 64):
        classes = np.zeros((planes, 256, 256), np.uint8)
        classes[:, 30:200, 20:220] = 1
        path = tmp_path / f"{planes}.zarr"
        zarr.create_array(path, data=classes, chunks=(1, 256, 256), dimension_names=("z", "y", "x"))
        del classes
        tracemalloc.start()
        try:
            sizes = BlockSizes(chunk=64, side=256, depth=8)
            find(open_source(path, labels=True), tmp_path / f"{planes} objects.zarr", sizes=sizes)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.skipif(os.name == "nt", reason="there, processes are killed in another way")
def test_killed_runs_end_as_one_that_was_not(classes, tmp_path, start_script):
    random = np.random.default_rng()
    labels = tmp_path / "labels.zarr"
    zarr.create_array(labels, data=classes, dimension_names=("z", "y", "x"))
    whole, killed = tmp_path / "whole" / "a.zarr", tmp_path / "killed" / "a.zarr"

    def run(target, events=None, seconds=0.0):
        process = start_script(
            "find_objects.py", labels=labels, target=target, events=events, seconds=seconds
        )
        process.join(120)
        return process.exitcode

    assert run(whole) == 0
    for events in (5, 25):
        seconds = float(random.uniform(0, 0.05))
        assert run(killed, events, seconds) == -signal.SIGKILL, (events, seconds)
    assert run(killed) == 0
    assert contents(killed.parent) == contents(whole.parent)
