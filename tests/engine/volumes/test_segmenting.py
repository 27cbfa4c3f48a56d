import hashlib
import signal
import threading
import time
from contextlib import closing

import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.config import SegmentConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import load_model, segment, segment_to_file
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.events import BlockDone, PlaneDone, ResultBegun, RunStarted, TilesDone
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.inference.segmentation import normalize_like
from napari_affmae.engine.inference.tiles import Region
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.results.volume import Place, Volume, is_complete
from napari_affmae.engine.volumes.blocks import BlockJob, BlockWork
from napari_affmae.engine.volumes.executor import Threads, compute_blocks
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.engine.volumes.segmenting import VolumeSegmenter
from napari_affmae.errors import UnwritableError

CONFIG = SegmentConfig(device="cpu", probabilities=True)
LABELS = SegmentConfig(device="cpu")
SIZES = BlockSizes(chunk=16, side=64)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A file of three planes, each of several blocks and tiles."""
    path = tmp_path_factory.mktemp("stack") / "stack.tif"
    with PlaneFile(path, 3, (8.0, 8.0), 8.0) as file:
        for plane in synthetic_em((3, 130, 100), seed=3)[0]:
            file.write(plane)
    return path


@pytest.fixture(scope="module")
def model(finetuned):
    return finetuned[0]


@pytest.fixture(scope="module")
def expected(stack, model):
    """Labels and probabilities as they come plane by plane."""
    planes, bands = [], []
    for event in segment(open_source(stack), model, CONFIG):
        if isinstance(event, PlaneDone):
            planes.append(event.labels)
        elif hasattr(event, "probabilities"):
            bands.append(event.probabilities)
    rows = np.concatenate(bands, axis=1)
    return np.stack(planes), rows.reshape(4, 3, 130, 100)


def volumes_of(model, config=LABELS, **options):
    return VolumeSegmenter(Origins(model, config), config, **options)


def contents(folder):
    """Hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("sizes", "workers"),
    [
        (BlockSizes(), 1),
        (BlockSizes(chunk=16, side=48), 2),
        (BlockSizes(chunk=30, side=90, depth=2), 3),
    ],
)
def test_blocks_and_workers_change_no_label(stack, model, expected, tmp_path, sizes, workers):
    target = tmp_path / "a.zarr"
    volumes = volumes_of(model, CONFIG, sizes=sizes, executor=Threads(workers))
    list(volumes.segment(open_source(stack), target))
    labels, probabilities = expected
    np.testing.assert_array_equal(zarr.open_array(target / "0", mode="r")[:], labels)
    chances = zarr.open_array(tmp_path / "a_probabilities.zarr" / "0", mode="r")[:]
    np.testing.assert_array_equal(chances, np.rint(probabilities * 255))


def test_a_tiff_has_the_same_labels_and_exact_probabilities(stack, model, expected, tmp_path):
    list(segment_to_file(open_source(stack), model, CONFIG, tmp_path / "a.tif"))
    labels, probabilities = expected
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), labels)
    found = tifffile.imread(tmp_path / "a_probabilities.tif")
    np.testing.assert_array_equal(np.moveaxis(found, 1, 0), probabilities)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "a_probabilities.tif"]


def test_blocks_of_small_planes_are_predicted_together(model, tmp_path):
    """As on a GPU: batches go from block to block, and each block is written and marked."""
    array = synthetic_em((7, 60, 70), seed=3)[0]
    source = open_source(array, axes="ZYX", name="small")
    list(volumes_of(model, CONFIG).segment(source, tmp_path / "expected.zarr"))
    origins = Origins(model, CONFIG)
    module, metadata = load_model(model)
    normalized = normalize_like(source, metadata)
    place = Place(tmp_path / "a.zarr", tmp_path / "a_probabilities.zarr")
    plan = Volume(Place(tmp_path / "expected.zarr")).plan
    volume = Volume.create(place, plan, "a")
    predictor = Predictor(module, Runtime(plan_device("cpu")), metadata.crop, 0.25, 7)
    job = BlockJob(normalized, origins.file, origins.of(source, "fp32"), CONFIG, place)
    work = BlockWork(job, predictor, volume)
    assert work.at_once == 7 // work.tiles(0) > 1
    events = list(compute_blocks(work, volume, Threads(2)))
    assert [e.done for e in events if isinstance(e, BlockDone)] == [*range(1, 8)]
    assert is_complete(place.labels)
    for ours, theirs in (
        (place.labels, "expected"),
        (place.probabilities, "expected_probabilities"),
    ):
        found = zarr.open_array(ours / "0", mode="r")[:].astype(int)
        expected = zarr.open_array(tmp_path / f"{theirs}.zarr" / "0", mode="r")[:]
        # The last bits differ, as several tiles are computed at once.
        assert (np.abs(found - expected) > 1).mean() < 0.01


def test_blocks_are_predicted_in_the_order_in_which_they_are_handed_out(
    stack, model, tmp_path, monkeypatch
):
    """What is looked at comes first, even if the thread of its first block begins last."""
    compute, predict, second_began = BlockWork._compute, Predictor.region, threading.Event()
    own, order = threading.local(), []
    corner = (2, 0, 0)

    def late(self, numbers, boxes, *others):
        own.corner = tuple(part.start for part in next(iter(boxes.values())))
        if own.corner == corner:
            assert second_began.wait(30)
        else:
            second_began.set()
        compute(self, numbers, boxes, *others)

    def note(self, *parts, **named):
        order.append(own.corner)
        return predict(self, *parts, **named)

    monkeypatch.setattr(BlockWork, "_compute", late)
    monkeypatch.setattr(Predictor, "region", note)
    looked_at = Region([2], slice(0, 130), slice(0, 100))
    events = volumes_of(model, sizes=SIZES).segment(
        open_source(stack), tmp_path / "a.zarr", focus=lambda: looked_at
    )
    list(events)
    in_view = sorted(place for place in order if place[0] == 2)
    assert order[: len(in_view)] == in_view
    assert len(order) == 3 * len(in_view) > 6


def test_events_count_tiles_and_blocks(stack, model, tmp_path):
    volumes = volumes_of(model, sizes=SIZES)
    first, *events = volumes.segment(open_source(stack), tmp_path / "a.zarr")
    assert isinstance(first, RunStarted)
    assert ResultBegun(tmp_path / "a.zarr", None) in events
    tiles = [event for event in events if isinstance(event, TilesDone)]
    assert [event.done for event in tiles] == [*range(1, tiles[0].total + 1)]
    assert tiles[-1].seconds_left == 0
    blocks = [event for event in events if isinstance(event, BlockDone)]
    assert [event.done for event in blocks] == [*range(1, blocks[0].total + 1)]
    assert {event.level for event in blocks} == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["a.zarr", "a.tif"])
def test_a_closed_run_goes_on_with_what_is_missing(stack, model, tmp_path, name):
    source, target = open_source(stack), tmp_path / name
    with closing(volumes_of(model, sizes=SIZES).segment(source, target)) as events:
        done = next(event for event in events if isinstance(event, BlockDone) and event.done == 4)
    rest = list(volumes_of(model, sizes=SIZES).segment(source, target))
    blocks = [event for event in rest if isinstance(event, BlockDone)]
    assert [event.done for event in blocks] == [*range(5, done.total + 1)]
    list(volumes_of(model, sizes=SIZES).segment(source, tmp_path / f"whole-{name}"))
    if name == "a.tif":
        whole = tifffile.imread(tmp_path / f"whole-{name}")
        np.testing.assert_array_equal(tifffile.imread(target), whole)
        assert len(list(tmp_path.iterdir())) == 2
    else:
        ours, whole = contents(target), contents(tmp_path / f"whole-{name}")
        assert {k: v for k, v in ours.items() if k != "zarr.json"} == {
            k: v for k, v in whole.items() if k != "zarr.json"
        }


def test_a_run_that_is_paused_rests(stack, model, tmp_path):
    """Whoever does not ask for more gets no more, after a few tiles."""
    volumes = volumes_of(model, LABELS.model_copy(update={"overlap": 0.75}), sizes=SIZES)
    computed = []
    module = volumes._segmenter.predictor._module
    module.register_forward_hook(lambda *_: computed.append(threading.get_ident()))
    with closing(volumes.segment(open_source(stack), tmp_path / "a.zarr")) as events:
        first = next(event for event in events if isinstance(event, TilesDone))
        time.sleep(2)
        assert len(computed) < 30 < first.total
        for _ in range(20):
            next(events)
        assert len(computed) > 10


def test_a_run_that_does_nothing_leaves_nothing(stack, model, tmp_path):
    for name in ("a.zarr", "a.tif"):
        with closing(volumes_of(model).segment(open_source(stack), tmp_path / name)) as events:
            next(event for event in events if isinstance(event, TilesDone))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.zarr", "a.tif"])
def test_another_model_or_setting_is_refused_or_begins_anew(stack, model, tmp_path, name):
    source, target = open_source(stack), tmp_path / name
    with closing(volumes_of(model, sizes=SIZES).segment(source, target)) as events:
        next(event for event in events if isinstance(event, BlockDone))
    retrained = tmp_path / "other.safetensors"
    content = (model / "model.safetensors").read_bytes()
    retrained.write_bytes(content.replace(b"nano", b"nona", 1))
    denser = LABELS.model_copy(update={"overlap": 0.5})
    for other, config, words in (
        (retrained, LABELS, "another model"),
        (model, denser, "another overlap of tiles"),
        (retrained, denser, "another model and another overlap of tiles"),
        (model, CONFIG, "another choice of probabilities"),
    ):
        with pytest.raises(UnwritableError, match=f"a.* was begun with {words};"):
            list(volumes_of(other, config, sizes=SIZES).segment(source, target))
    other_image = open_source(255 - source.read(0)[0], axes="YX", name="other")
    with pytest.raises(UnwritableError, match="another image"):
        list(volumes_of(model, sizes=SIZES).segment(other_image, target))
    volumes = volumes_of(model, denser, sizes=SIZES)
    list(volumes.segment(source, target, overwrite=True))
    assert is_complete(target) if name == "a.zarr" else target.exists()
    with pytest.raises(UnwritableError, match="is complete"):
        list(volumes.segment(source, target))


def test_two_processes_do_not_write_one_result(stack, model, tmp_path):
    source, target = open_source(stack), tmp_path / "a.zarr"
    with closing(volumes_of(model, sizes=SIZES).segment(source, target)) as events:
        next(event for event in events if isinstance(event, BlockDone))
        with pytest.raises(UnwritableError, match="another process is writing"):
            list(volumes_of(model, sizes=SIZES).segment(source, target, overwrite=True))


@pytest.mark.parametrize(("name", "kills"), [("a.zarr", 3), ("a.tif", 1)])
def test_a_killed_run_ends_as_one_that_was_not(stack, model, tmp_path, start_script, name, kills):
    """Equal bytes; those of a TIFF hold a number that is unique to each file."""
    random = np.random.default_rng()
    whole, killed = tmp_path / "whole" / name, tmp_path / "killed" / name

    def run(target, tiles=None, seconds=0.0):
        facts = {"image": stack, "model": model, "target": target, "probabilities": True}
        process = start_script("segment_volume.py", **facts, tiles=tiles, seconds=seconds)
        process.join(120)
        return process.exitcode

    assert run(whole) == 0
    for _ in range(kills):
        tiles, seconds = int(random.integers(2, 12)), float(random.uniform(0, 0.3))
        assert run(killed, tiles, seconds) == -signal.SIGKILL, (tiles, seconds)
    assert run(killed) == 0
    if name == "a.zarr":
        assert contents(killed.parent) == contents(whole.parent)
        return
    assert sorted(p.name for p in killed.parent.iterdir()) == ["a.tif", "a_probabilities.tif"]
    for path in killed.parent.iterdir():
        ours, theirs = tifffile.imread(path), tifffile.imread(whole.with_name(path.name))
        np.testing.assert_array_equal(ours, theirs)
