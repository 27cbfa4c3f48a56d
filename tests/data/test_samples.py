"""Samples to try the program on; the real one comes from a server of the test's own."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pytest

from napari_affmae.data import (
    fetch_real_sample,
    open_source,
    real_sample,
    samples,
    synthetic_sample,
)
from napari_affmae.errors import AffmaeError


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with files like the real ones, whose checksums the program is told."""
    folder = tmp_path / "server"
    folder.mkdir()
    random = np.random.default_rng(0)
    with h5py.File(folder / "grayscale_maps.h5", "w") as file:
        file["raw"] = random.integers(0, 255, (4, 60, 80), dtype=np.uint8)
    pieces = np.zeros((4, 60, 80), np.uint32)
    pieces[:, :, :20], pieces[:, :, 20:40], pieces[:, :, 40:] = 7, 3, 12
    pieces[:, 30:33, 50:53] = 9  # a gap of the tracing
    pieces[:, 20, 60] = 0
    with h5py.File(folder / "groundtruth.h5", "w") as file:
        file["stack"] = pieces
        file["transforms"] = np.array([[0, 0], [7, 1], [3, 1], [12, 2], [9, 5]], np.uint64)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder))
    server.asked, server.folder = [], folder
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(samples, "_URL", f"http://127.0.0.1:{server.server_port}")
    for constant, name in (("_IMAGE", "grayscale_maps.h5"), ("_NEURONS", "groundtruth.h5")):
        checksum = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        monkeypatch.setattr(samples, constant, (name, checksum))
    monkeypatch.setattr(samples.pooch, "os_cache", lambda _project: tmp_path / "cache")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_real_sample_is_downloaded_once(server, tmp_path):
    told = []
    image, neurons = fetch_real_sample(lambda done, total: told.append((done, total)))
    assert image.parent == tmp_path / "cache"
    sizes = [path.stat().st_size for path in (image, neurons)]
    assert [entry for entry in told if entry[0] == entry[1]] == [(size, size) for size in sizes]
    assert len(server.asked) == 2
    assert fetch_real_sample() == (image, neurons)
    assert len(server.asked) == 2
    with open_source(image) as source:
        assert (source.n_planes, source.height, source.width) == (4, 60, 80)


def test_membranes_lie_between_neurons(server):
    volume, labels, classes = real_sample()
    assert volume.shape == labels.shape == (4, 60, 80)
    assert [item.name for item in classes] == ["cell", "membrane"]
    expected = np.zeros((60, 80), np.uint8)
    # Pieces 7 and 3 are one neuron; the gap and the single pixel are filled.
    expected[:, 38:42] = 1
    for plane in labels:
        np.testing.assert_array_equal(plane, expected)


def test_a_file_that_is_not_the_sample_is_refused(server, tmp_path):
    (server.folder / "groundtruth.h5").write_bytes(b"another file")
    with pytest.raises(AffmaeError, match="is not the sample"):
        fetch_real_sample()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["fib25-grayscale_maps.h5"]


def test_without_a_connection_it_says_what_to_do(server, monkeypatch):
    monkeypatch.setattr(samples, "_URL", "http://127.0.0.1:9")
    with pytest.raises(AffmaeError, match="Connect to the internet"):
        fetch_real_sample()


def test_a_server_that_lost_the_file(server):
    (server.folder / "grayscale_maps.h5").unlink()
    with pytest.raises(AffmaeError, match="404"):
        fetch_real_sample()


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(AffmaeError, match="cannot write the sample"):
        fetch_real_sample()


def test_the_synthetic_sample_has_all_its_classes():
    volume, labels, classes = synthetic_sample()
    assert volume.shape == labels.shape
    assert volume.dtype == labels.dtype == np.uint8
    values = {item.value: item.name for item in classes}
    assert set(np.unique(labels)) == set(values)
    assert values[2] == "mitochondrion"
    assert len({item.color for item in classes}) == len(classes)
