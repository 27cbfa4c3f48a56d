"""A volume that a real cluster of processes computes, of which one is lost on the way."""

import os
import signal
import socket

import numpy as np
import pytest
import zarr

from napari_affmae.config import SegmentConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine.events import BlockDone, TilesDone
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.engine.volumes.segmenting import VolumeSegmenter
from napari_affmae.errors import DeviceUnavailableError

distributed = pytest.importorskip("distributed")
cluster = pytest.importorskip("napari_affmae.engine.volumes.cluster")

CONFIG = SegmentConfig(device="cpu")
SIZES = BlockSizes(chunk=16, side=64)


@pytest.fixture
def scheduler():
    """Two workers in processes of their own; one that dies is started again."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as local:
        yield local.scheduler_address


@pytest.mark.skipif(os.name == "nt", reason="there, processes are killed in another way")
def test_a_cluster_writes_the_same_and_a_lost_worker_costs_nothing(finetuned, scheduler, tmp_path):
    image, target = tmp_path / "image.tif", tmp_path / "a.zarr"
    with PlaneFile(image, 3) as file:
        for plane in synthetic_em((3, 130, 100), seed=3)[0]:
            file.write(plane)
    origins, source = Origins(finetuned[0], CONFIG), open_source(image)
    executor = cluster.Cluster(scheduler)
    volumes = VolumeSegmenter(origins, CONFIG, executor=executor, sizes=SIZES)
    events, killed = [], None
    for event in volumes.segment(source, target):
        events.append(event)
        if killed is None and isinstance(event, BlockDone):
            with distributed.Client(scheduler) as client:
                killed = min(client.run(os.getpid).values())
            os.kill(killed, signal.SIGKILL)
    executor.close()
    assert killed is not None
    tiles = [event for event in events if isinstance(event, TilesDone)]
    assert tiles[-1].done == tiles[-1].total

    here = tmp_path / "here.zarr"
    list(VolumeSegmenter(origins, CONFIG, sizes=SIZES).segment(source, here))
    assert not list(target.rglob("*.partial"))
    for level in range(4):
        ours, theirs = (zarr.open_array(f / str(level), mode="r")[:] for f in (target, here))
        np.testing.assert_array_equal(ours, theirs)


def test_a_scheduler_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DeviceUnavailableError, match="no scheduler of dask answers"):
        cluster.Cluster(f"tcp://127.0.0.1:{port}")
