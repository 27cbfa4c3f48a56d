import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_affmae.data import open_source
from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.results.pyramid import average, most_frequent
from napari_affmae.engine.results.target import begin, is_unfinished
from napari_affmae.engine.results.tree import made_from_alone
from napari_affmae.engine.results.volume import Place, Volume, is_complete
from napari_affmae.errors import UnreadableFileError, UnwritableError
from napari_affmae.files import temporary_path

SIZES = BlockSizes(chunk=8, side=16)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "a.zarr", tmp_path / "a_probabilities.zarr")


@pytest.fixture
def plan(make_plan):
    known = {"pixel_size": (4.0, 5.0), "plane_distance": 4.0}
    return make_plan((3, 40, 50), "ZYX", sizes=SIZES, probabilities="uint8", **known)


def test_what_is_written_can_be_read_on_all_levels(place, plan, fill):
    random = np.random.default_rng(0)
    labels = random.choice(np.array([0, 2], np.uint8), plan.shape)
    probabilities = random.integers(0, 256, (2, *plan.shape), np.uint8)
    volume = begin(place, plan, place.labels, anew=False)
    assert is_unfinished(place.labels)
    fill(volume, labels, probabilities)
    assert is_complete(place.labels)
    for level in range(plan.levels):
        found = zarr.open_array(place.labels / str(level), mode="r")
        np.testing.assert_array_equal(found[:], labels)
        chances = zarr.open_array(place.probabilities / str(level), mode="r")
        np.testing.assert_array_equal(chances[:], probabilities)
        if level + 1 < plan.levels:
            steps = zip(plan.steps[level + 1], plan.steps[level], strict=True)
            factors = tuple(a // b for a, b in steps)
            labels = most_frequent(labels, factors)
            probabilities = np.stack([average(part, factors) for part in probabilities])
    source = open_source(place.labels)
    assert (source.pixel_size, source.plane_distance) == ((4.0, 5.0), 4.0)
    assert zarr.open_group(place.labels, mode="r")["0"].shards == plan.shard
    np.testing.assert_array_equal(volume.label_plane(1), source.read(1)[0])
    others = np.stack(list(volume.probability_planes(2)))
    np.testing.assert_array_equal(others, open_source(place.probabilities).read(2))


def test_levels_made_in_memory_are_those_made_from_the_disk(tmp_path, make_plan, fill):
    plan = make_plan((3, 40, 50), "ZYX", sizes=BlockSizes(chunk=8), probabilities="float16")
    random = np.random.default_rng(0)
    labels = random.choice(np.array([0, 2], np.uint8), plan.shape)
    probabilities = random.random((2, *plan.shape)).astype(np.float16)
    folders = []
    for name in ("memory", "disk"):
        place = Place(tmp_path / name / "a.zarr", tmp_path / name / "b.zarr")
        folders.append(tmp_path / name)
        volume = Volume.create(place, plan, "a")
        if name == "disk":
            fill(volume, labels, probabilities)
            continue
        for number in range(plan.first(1)):
            smaller = list(made_from_alone(plan, number))
            assert len(smaller) == plan.levels - 1 == 2
            _, box = volume.box(number)
            parts = labels[box], probabilities[:, *box]
            volume.write_chain([number, *smaller], parts)
    one, other = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("c/**/*[0-9]")
            if path.is_file()
        }
        for folder in folders
    )
    assert one == other
    assert len(one) == 2 * plan.first(plan.levels)


def test_metadata_name_units_classes_and_colours(place, plan):
    Volume.create(place, plan, "a")
    ome = json.loads((place.labels / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert ome["image-label"] == {
        "colors": [
            {"label-value": 0, "rgba": [0, 0, 0, 0]},
            {"label-value": 2, "rgba": [255, 128, 0, 255]},
        ],
        "properties": [
            {"label-value": 0, "name": "inside"},
            {"label-value": 2, "name": "membrane"},
        ],
    }
    (multiscale,) = ome["multiscales"]
    assert [axis["unit"] for axis in multiscale["axes"]] == ["nanometer"] * 3
    scale, move = multiscale["datasets"][1]["coordinateTransformations"]
    assert (scale["scale"], move["translation"]) == ([8.0, 8.0, 10.0], [2.0, 2.0, 2.5])
    omero = json.loads((place.probabilities / "zarr.json").read_text())["attributes"]["ome"][
        "omero"
    ]
    assert [channel["label"] for channel in omero["channels"]] == ["inside", "membrane"]


def test_a_block_of_zeros_is_stored(place, plan, fill):
    """So that what is absent was lost, or never written."""
    volume = Volume.create(place, plan, "a")
    fill(volume, np.zeros(plan.shape, np.uint8), np.zeros((2, *plan.shape), np.uint8))
    files = [path for path in (place.labels / "0" / "c").rglob("*") if path.is_file()]
    assert len(files) == len(plan.blocks(0))


def test_what_a_kill_left_of_a_block_is_not_trusted(place, plan):
    volume = Volume.create(place, plan, "a")
    number = len(plan.blocks(0)) - 1
    level, box = volume.box(number)
    folder = place.labels / "0" / "c" / "2" / "1"
    folder.mkdir(parents=True)
    (folder / "2").write_bytes(b"damaged")
    temporary_path(folder / "2").write_bytes(b"half")
    shape = tuple(part.stop - part.start for part in box)
    volume.clear(number)
    volume.write(level, box, np.full(shape, 2, np.uint8), np.zeros((2, *shape), np.uint8))
    temporary_path(folder / "2").write_bytes(b"a worker that was lost")
    volume.mark(number)
    assert [path.name for path in folder.iterdir()] == ["2"]
    assert (zarr.open_array(place.labels / "0", mode="r")[box] == 2).all()


def test_a_volume_that_was_begun_is_opened_and_another_plan_is_refused(place, plan, make_plan):
    begin(place, plan, place.labels, anew=False).mark(3)
    assert begin(place, plan, place.labels, anew=False).ledger.done == 1
    other = make_plan((3, 40, 50), "ZYX", sizes=SIZES, probabilities="uint8", pixel_size=(9.0, 9.0))
    with pytest.raises(UnwritableError, match="was begun with other settings"):
        begin(place, other, place.labels, anew=False)
    assert begin(place, other, place.labels, anew=True).ledger.done == 0


def test_a_kill_between_both_folders_costs_nothing(place, plan):
    begin(place, plan, place.labels, anew=False)
    place.labels.rename(place.labels.with_name("gone"))
    assert begin(place, plan, place.labels, anew=False).ledger.done == 0


@pytest.mark.parametrize("what", ["zarr", "folder", "link"])
def test_what_is_no_result_is_never_replaced(place, plan, what, tmp_path):
    theirs = tmp_path / "theirs"
    zarr.create_group(theirs)
    if what == "link":
        place.labels.symlink_to(theirs)
    elif what == "zarr":
        theirs.rename(place.labels)
    else:
        place.labels.mkdir()
        (place.labels / "thesis.txt").write_text("all of it")
    with pytest.raises(UnwritableError, match="is no result of this program"):
        begin(place, plan, place.labels, anew=True)
    assert place.labels.exists()


@pytest.mark.parametrize("damage", ["other", "short", "gone"])
def test_a_ledger_that_is_not_its_own_is_refused(place, plan, damage):
    Volume.create(place, plan, "a")
    ledger: Path = place.labels / "0" / "done"
    content = ledger.read_bytes()
    if damage == "gone":
        ledger.unlink()
    else:
        ledger.write_bytes(bytes(len(content)) if damage == "other" else content[:-1])
    with pytest.raises(UnreadableFileError):
        Volume(place)
    with pytest.raises(UnreadableFileError):
        is_complete(place.labels)


def test_damaged_metadata_are_an_error(place, plan):
    Volume.create(place, plan, "a")
    (place.labels / "zarr.json").write_text("{")
    with pytest.raises(UnreadableFileError, match="cannot read"):
        Volume(place)


def test_results_are_known_for_what_they_are(place, plan):
    Volume.create(place, plan, "a")
    assert open_source(place.labels).content == "result"
    assert open_source(place.probabilities).content == "result"
