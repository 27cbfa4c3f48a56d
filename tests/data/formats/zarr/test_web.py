"""Zarr folders on a web server, here one that serves a folder of this computer."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zarr

from napari_affmae.data.discovery import find_pairs, find_sources
from napari_affmae.data.formats.files.paths import shown, url_of
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.formats.zarr import web
from napari_affmae.errors import FileAccessError, UnreadableFileError


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without telling of it."""

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path) -> Iterator[str]:
    """Address of the temporary folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://a.org/b.zarr", "http://a.org/b.zarr"),
        (Path("https://a.org/b.zarr"), "https://a.org/b.zarr"),
        ("http:/a.org", "http://a.org"),
        ("/http:/a", None),
        ("a.zarr", None),
        ("http:", None),
    ],
)
def test_addresses(given, url):
    assert url_of(given) == url
    assert shown(given) == (url or str(given))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_of_a_server(tmp_path, served, stack, zarr_format, assert_reads):
    zarr.create_array(tmp_path / "a.zarr", data=stack, chunks=(1, 20, 20), zarr_format=zarr_format)
    source = open_source(f"{served}/a.zarr")
    assert_reads(source, stack)
    assert source.name == "a.zarr"
    zarr.create_array(tmp_path / "labels.zarr", data=stack, chunks=(1, 20, 20))
    ((image, labels),) = find_pairs(f"{served}/a.zarr", Path(f"{served}/labels.zarr"))
    assert_reads(image, stack)
    assert_reads(labels, stack)
    (tmp_path / "a.zarr").rename(tmp_path / "b.zarr")
    source.close()
    with pytest.raises(UnreadableFileError, match=f"{served}/a.zarr: .*no zarr array"):
        source.read(0)


def test_groups_of_a_server(tmp_path, served, stack, assert_reads):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.create_array("volumes/raw", data=stack)
    root.create_array("volumes/label", data=stack[:2])
    assert_reads(open_source(f"{served}/a.zarr:/volumes/raw"), stack)
    with pytest.raises(UnreadableFileError, match="cannot be listed over the web"):
        open_source(f"{served}/a.zarr")
    zarr.consolidate_metadata(tmp_path / "a.zarr", zarr_format=2)
    source = open_source(f"{served}/a.zarr")
    assert_reads(source, stack)
    assert "volumes/raw" in source.notes[0]


def test_what_is_not_there_is_named_by_its_address(served):
    for address, error, words in [
        (f"{served}/a.zarr", UnreadableFileError, "no zarr array or group"),
        (f"{served}/a.tif", UnreadableFileError, "only zarr folders are read from the web"),
        ("http://127.0.0.1:9/a.zarr", FileAccessError, "refused"),
    ]:
        with pytest.raises(error, match=words) as caught:
            open_source(Path(address))
        assert address in str(caught.value)
        (skipped,) = find_sources([Path(address)]).skipped
        assert address in skipped.reason


def test_packages_that_are_missing_are_said(served, monkeypatch):
    monkeypatch.setattr(web, "_NEEDED", ("a_package_that_is_not_there",))
    with pytest.raises(UnreadableFileError, match=r"pip install \"napari-affmae\[http\]\""):
        open_source(f"{served}/a.zarr")
