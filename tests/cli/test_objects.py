import csv
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_affmae.config import ObjectsConfig
from napari_affmae.data import open_source
from napari_affmae.engine import objects_to_file
from napari_affmae.engine.results.ome_tiff import PlaneFile


@pytest.fixture
def segmented(tmp_path):
    """Two planes with an object of class 2 through both, and one of class 1 on the second."""
    planes = np.zeros((2, 40, 50), np.uint8)
    planes[:, 5:15, 10:20] = 2
    planes[1, 30:34, 30:40] = 1
    planes[0, 39, 49] = 2
    path = tmp_path / "segmented" / "a.tif"
    path.parent.mkdir()
    with PlaneFile(path, 2, (4.0, 5.0)) as file:
        for plane in planes:
            file.write(plane)
    return path


def read_table(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_objects_of_planes(cli, segmented, tmp_path):
    tifffile.imwrite(segmented.with_name("a_probabilities.tif"), np.ones((4, 5), np.float32))
    out = tmp_path / "objects"
    words = ("--value", 1, "--value", 2, "--min-size", 5, "--out", out)
    assert cli("objects", segmented.parent, *words).code == 0
    numbers = tifffile.imread(out / "a.tif")
    assert numbers.dtype == np.uint32
    table = read_table(out / "a.csv")
    assert [row["label"] for row in table] == [1, 2, 3]
    assert [row["class"] for row in table] == [2, 2, 1]
    assert [row["plane"] for row in table] == [0, 1, 1]
    assert [row["area_nm2"] for row in table] == [2000, 2000, 800]
    for row in table:
        plane = numbers[int(row["plane"])]
        assert plane[round(row["row"]), round(row["column"])] == row["label"]
    assert numbers[0, 39, 49] == 0


def test_numbers_in_a_table_of_colours_are_classes(cli, tmp_path):
    classes = np.zeros((40, 50), np.uint8)
    classes[5:15, 10:20] = 1
    picture = Image.fromarray(classes, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "a.png")
    words = ("--value", 1, "--min-size", 5, "--out", tmp_path / "objects")
    assert cli("objects", tmp_path / "a.png", *words).code == 0
    (row,) = read_table(tmp_path / "objects" / "a.csv")
    assert (row["class"], row["size_px"]) == (1, 100)


def test_objects_in_three_dimensions(cli, segmented, tmp_path):
    out = tmp_path / "solid.tif"
    words = ("--value", 2, "--three-d", "--separation", 1, "--min-size", 5, "--out", out)
    assert cli("objects", segmented, *words).code == 0
    assert "volume_nm3" not in read_table(out.with_suffix(".csv"))[0]
    assert cli("objects", segmented, *words, "--overwrite", "--plane-distance", 40).code == 0
    (row,) = read_table(out.with_suffix(".csv"))
    assert (row["plane"], row["size_px"], row["volume_nm3"]) == (0.5, 200, 160_000)
    np.testing.assert_array_equal(*tifffile.imread(out))
    flat = cli("objects", segmented, "--value", 2, "--plane-distance", 40, "--out", out)
    assert flat.code == 2
    assert "add --three-d" in flat.err


def test_the_distance_of_planes_goes_from_file_to_file(cli, segmented, tmp_path):
    stack = tifffile.imread(segmented)
    with PlaneFile(segmented, 2, (4.0, 5.0), 30.0) as file:
        for plane in stack:
            file.write(plane)
    for source, out in ((segmented, tmp_path / "a.tif"), (tmp_path / "a.tif", tmp_path / "b.tif")):
        words = ("--value", 1, "--three-d", "--min-size", 5, "--out", out)
        assert cli("objects", source, *words).code == 0
    (row,) = read_table(tmp_path / "a.csv")
    assert row["volume_nm3"] == row["size_px"] * 4 * 5 * 30
    assert open_source(tmp_path / "b.tif").plane_distance == 30


def test_a_volume_goes_to_ome_zarr_with_grey_values(cli, segmented, tmp_path):
    grey = tmp_path / "grey.tif"
    tifffile.imwrite(grey, np.full((2, 40, 50), 7, np.uint16))
    out = tmp_path / "objects.zarr"
    words = ("--value", 2, "--three-d", "--link", "overlap", "--min-size", 5, "--image", grey)
    assert cli("objects", segmented, *words, "--out", out).code == 0
    numbers = zarr.open_array(out / "0", mode="r")[:]
    (row,) = read_table(tmp_path / "objects.csv")
    assert (row["size_px"], row["mean_grey"], row["sd_grey"]) == (200, 7, 0)
    assert (numbers == 1).sum() == 200
    again = cli("objects", segmented, *words, "--out", out)
    assert again.code == 2
    assert "objects.zarr exists" in again.err
    both = cli("objects", segmented, out, *words, "--out", tmp_path / "folder")
    assert both.code == 2
    assert "--image is the image of one segmentation" in both.err


def test_a_stopped_search_goes_on(cli, segmented, tmp_path):
    out = tmp_path / "objects.zarr"
    source, config = open_source(segmented, labels=True), ObjectsConfig(min_size=5)
    with closing(objects_to_file(source, (2,), config, out)) as events:
        next(event for event in events if event.doing == "numbering")
    result = cli("objects", segmented, "--value", 2, "--min-size", 5, "--out", out)
    assert result.code == 0, result.err
    assert [row["label"] for row in read_table(tmp_path / "objects.csv")] == [1, 2]


def test_an_unfinished_result_is_refused(cli, segmented, tmp_path):
    """Be it a segmentation or, as here, objects."""
    whole = np.zeros((2, 2100, 2100), np.uint8)
    whole[:, 500:600, 500:600] = 1
    source = open_source(whole, axes="ZYX", name="whole")
    unfinished = tmp_path / "unfinished.zarr"
    with closing(objects_to_file(source, (1,), ObjectsConfig(), unfinished)) as events:
        next(event for event in events if event.doing == "numbering")
    result = cli("objects", unfinished, "--value", 1, "--out", tmp_path / "objects.zarr")
    assert result.code == 1
    assert "unfinished.zarr is not complete: 1 of its" in result.err
    assert "Give the command that began it again" in result.err
    both = cli("objects", segmented, unfinished, "--value", 2, "--out", tmp_path / "folder")
    assert both.code == 1  # and not only a warning
    assert "unfinished.zarr is not complete" in both.err
    assert len(read_table(tmp_path / "folder" / f"{segmented.stem}.csv")) > 0


@pytest.mark.parametrize("name", ["[old] stack.tif", "a [/x].tif"])
def test_brackets_in_names_are_no_markup(cli, segmented, tmp_path, name):
    path = segmented.parent / name
    path.parent.mkdir(exist_ok=True)
    segmented.rename(path)
    result = cli("objects", segmented.parent, "--value", 2, "--out", tmp_path / "objects")
    assert result.code == 0
    assert f"{name}: 2/2" in result.err


@pytest.mark.parametrize("out", ["notes", "notes/deep"])
@pytest.mark.parametrize("command", ["objects", "pretrain", "demo", "import-checkpoint"])
def test_results_below_a_file_are_refused(cli, segmented, tmp_path, command, out):
    (tmp_path / "notes").write_text("mine")
    words = {
        "objects": ("objects", segmented, "--value", 2),
        "pretrain": ("pretrain", segmented),
        "demo": ("demo",),
        "import-checkpoint": ("import-checkpoint", segmented),
    }[command]
    target = tmp_path / out / ("model.safetensors" if command == "import-checkpoint" else "")
    result = cli(*words, "--out", target)
    assert result.code == 2
    assert f"{tmp_path / 'notes'} is a file" in result.err


def test_results_are_replaced_only_on_demand(cli, segmented, tmp_path):
    out = tmp_path / "objects"
    assert cli("objects", segmented, "--value", 2, "--out", out).code == 0
    (out / "a.tif").unlink()
    again = cli("objects", segmented, "--value", 2, "--out", out)
    assert again.code == 2
    assert "a.csv exists (1 of 2 results do)" in again.err
    assert cli("objects", segmented, "--value", 2, "--out", segmented).code == 2


def test_images_without_whole_numbers_are_refused(cli, tmp_path):
    path = tmp_path / "probabilities.tif"
    tifffile.imwrite(path, np.full((30, 40), 0.5, np.float32))
    result = cli("objects", path, "--value", 1, "--out", tmp_path / "objects")
    assert result.code == 2
    assert "not whole numbers" in result.err
    assert not list((tmp_path / "objects").glob("*"))


def test_probabilities_beside_labels_are_left_out(cli, segmented, tmp_path):
    with PlaneFile(segmented.with_name("a_probabilities.tif"), 1) as file:
        file.write(np.ones((3, 40, 50), np.float32))
    tifffile.imwrite(segmented.with_name("b.tif"), np.full((40, 50), 0.5, np.float32))
    result = cli("objects", segmented.parent, "--value", 2, "--out", tmp_path / "objects")
    assert result.code == 0, result.err
    assert result.err.count("left out") == 2
    assert sorted(file.name for file in (tmp_path / "objects").iterdir()) == ["a.csv", "a.tif"]


def test_bounds_are_those_of_the_settings(cli, segmented, tmp_path):
    result = cli("objects", segmented, "--value", 1, "--separation", -1, "--out", tmp_path / "x")
    assert result.code == 2
    assert "--separation" in result.err


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_plan_is_told_and_nothing_is_made(cli, data, tmp_path, command):
    images = [data / "images"] + [data / "labels"] * (command == "finetune")
    run = tmp_path / "run"
    length = ("--crop", 64, "--batch", 2, "--steps", 50, "--device", "cpu")
    result = cli(command, *images, "--out", run, *length, "--plan")
    assert result.code == 0
    assert result.out.startswith("CPU, ")
    assert "s a step" in result.out
    assert "50 steps (" in result.out
    assert not run.exists()
