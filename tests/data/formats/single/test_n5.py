"""N5 folders, written by a few lines that follow its specification."""

import gzip
import json
import shutil
import struct
import sys

import numpy as np
import pytest
import tensorstore
import tifffile

from napari_affmae.data.discovery import find_sources
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError

SIDES = (2, 20, 24)
JANELIA = {"pixelResolution": {"dimensions": [3, 4, 50], "unit": "nm"}}


def write(folder, array, *, sides=SIDES, compression="gzip", **attributes):
    """Write an array of numpy's order; the file counts axes from the fastest."""
    sides = sides[-array.ndim :]
    counts = [-(-n // side) for n, side in zip(array.shape, sides, strict=True)]
    for number in np.ndindex(*counts):
        starts = np.multiply(number, sides)
        part = array[tuple(map(slice, starts, starts + sides))]
        place = folder.joinpath(*map(str, number[::-1]))
        place.parent.mkdir(parents=True, exist_ok=True)
        raw = part.astype(part.dtype.newbyteorder(">")).tobytes()
        head = struct.pack(f">HH{part.ndim}I", 0, part.ndim, *part.shape[::-1])
        place.write_bytes(head + (gzip.compress(raw) if compression == "gzip" else raw))
    describe(
        folder,
        dimensions=array.shape[::-1],
        blockSize=sides[::-1],
        dataType=array.dtype.name,
        compression={"type": compression},
        **attributes,
    )
    return folder


def describe(folder, **attributes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attributes.json").write_text(json.dumps(attributes))


@pytest.mark.parametrize("compression", ["raw", "gzip"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "float32"])
def test_planes_are_along_z(tmp_path, stack, dtype, compression, assert_reads):
    array = stack.astype(dtype)
    source = open_source(write(tmp_path / "a.n5", array, compression=compression, **JANELIA))
    assert_reads(source, array)
    assert source.pixel_size == (4, 3)
    assert source.plane_distance == 50


@pytest.mark.parametrize("compression", ["blosc", "bzip2", "gzip", "xz", "zstd"])
def test_compressions(tmp_path, stack, compression, assert_reads):
    details = {"cname": "lz4", "clevel": 5, "shuffle": 1} if compression == "blosc" else {}
    metadata = {
        "dimensions": stack.shape[::-1],
        "blockSize": SIDES[::-1],
        "dataType": "uint8",
        "compression": {"type": compression, **details},
    }
    place = {"driver": "file", "path": (tmp_path / "a.n5").as_posix()}
    spec = {"driver": "n5", "kvstore": place, "metadata": metadata}
    tensorstore.open(spec, create=True).result()[...].write(stack.T).result()
    assert_reads(open_source(tmp_path / "a.n5"), stack)


def test_arrays_of_the_first_version(tmp_path, stack, assert_reads):
    path = write(tmp_path / "a.n5", stack)
    told = json.loads((path / "attributes.json").read_text())
    kind = told.pop("compression")["type"]
    describe(path, **told, compressionType=kind)
    assert_reads(open_source(path), stack)


def test_chunks_that_are_large_planes(tmp_path, assert_reads):
    array = np.random.default_rng(0).integers(0, 255, (3, 600, 500), dtype=np.uint8)
    assert_reads(open_source(write(tmp_path / "a.n5", array, sides=(1, 600, 500))), array)


def test_a_single_plane(tmp_path, stack, assert_reads):
    assert_reads(open_source(write(tmp_path / "a.n5", stack[0], resolution=[3, 4])), stack[:1])


def test_arrays_of_a_container(tmp_path, stack, assert_reads):
    root = tmp_path / "a.n5"
    describe(root, n5="2.5.1")
    write(root / "volumes" / "raw" / "s0", stack)
    write(root / "volumes" / "raw" / "s1", stack[:, ::2, ::2])
    write(root / "volumes" / "rawest", stack[:, ::4])
    source = open_source(root)
    assert_reads(source, stack)
    assert source.notes == ("its largest array volumes/raw/s0 is used",)
    for inner, array in [
        ("volumes/raw/s1", stack[:, ::2, ::2]),
        ("volumes/raw", stack),
        ("volumes/rawest", stack[:, ::4]),
    ]:
        assert_reads(open_source(f"{root}:/{inner}"), array)
    assert_reads(open_source(root / "volumes" / "raw" / "s1"), stack[:, ::2, ::2])
    for inner in ["volumes/ra", "../a.n5/volumes/rawest", "volumes/raw/s0/0"]:
        with pytest.raises(UnreadableFileError, match=f"no image array '/{inner}'; it has: vol"):
            open_source(f"{root}:/{inner}")


@pytest.mark.parametrize(
    ("group", "levels"),
    [
        ({}, [JANELIA, {**JANELIA, "downsamplingFactors": [2, 2, 1]}]),
        (JANELIA, [{}, {"downsamplingFactors": [2, 2, 1]}]),
        ({**JANELIA, "scales": [[1, 1, 1], [2, 2, 1]]}, [{}, {}]),
        ({"pixelResolution": [3, 4, 50], "scales": [[1, 1, 1], [2, 2, 1]]}, [{}, {}]),
        ({"resolution": [3.0, 4.0, 50.0]}, [{}, {"downsamplingFactors": [2, 2, 1]}]),
        (
            {"resolution": [1, 2, 3]},  # less exact than what the arrays say
            [
                {"transform": {"axes": ["z", "y", "x"], "scale": scale, "units": ["nm"] * 3}}
                for scale in ([50, 4, 3], [50, 8, 6])
            ],
        ),
    ],
)
def test_sizes_of_levels(tmp_path, stack, group, levels):
    root = tmp_path / "a.n5"
    describe(root / "raw", **group)
    for number, attributes in enumerate(levels):
        write(root / "raw" / f"s{number}", stack[:, :: number + 1, :: number + 1], **attributes)
    for number, size in enumerate([(4, 3), (8, 6)]):
        source = open_source(f"{root}:/raw/s{number}")
        assert source.pixel_size == size
        assert source.plane_distance == 50


def test_attributes_of_other_shapes_are_no_sizes(tmp_path, stack):
    for attributes in [
        {"pixelResolution": "4 nm"},
        {"transform": ["x"]},
        {"transform": {"axes": [1, 2, 3], "scale": "big"}},
        {"resolution": {"x": 3}},
    ]:
        source = open_source(write(tmp_path / "a.n5", stack, **attributes))
        assert source.pixel_size is None


def test_chunks_that_are_not_stored_are_empty(tmp_path, stack):
    source = open_source(write(tmp_path / "a.n5", stack))
    (tmp_path / "a.n5" / "0" / "0" / "0").unlink()
    block = source.read(0)[0]
    assert not block[:20, :24].any()
    np.testing.assert_array_equal(block[20:], stack[0, 20:])


def test_damage_and_loss_are_told(tmp_path, stack):
    path = write(tmp_path / "a.n5", stack)
    source = open_source(path)
    whole = (path / "attributes.json").read_bytes()
    for damaged in (whole[:-9], b"[" * 10_000, b"[]", b"\xff"):
        write(tmp_path / "b.n5" / "raw", stack)
        (tmp_path / "b.n5" / "raw" / "attributes.json").write_bytes(damaged)
        with pytest.raises(UnreadableFileError, match=r"raw.attributes\.json is .*no file of N5"):
            open_source(tmp_path / "b.n5")
    chunk = path / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(UnreadableFileError, match=r"a\.n5"):
        source.read(0)
    shutil.rmtree(path)
    with pytest.raises(UnreadableFileError, match="is gone"):
        source.read(4)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"compression": {"type": "lz4"}}, "compressed by lz4.*save it as OME-Zarr"),
        ({"blockSize": [2**31 - 1] * 3}, "maximum chunk size"),
        ({"blockSize": [9, 9]}, "blockSize|rank"),
        ({"dimensions": [5, "a"]}, "no array"),
        ({"dimensions": [5, -1]}, "no array"),
        ({"dataType": "string"}, "no array"),
    ],
)
def test_arrays_that_are_not_read(tmp_path, stack, attributes, words):
    path = write(tmp_path / "a.n5", stack)
    told = json.loads((path / "attributes.json").read_text())
    describe(path, **{**told, **attributes})
    with pytest.raises(UnreadableFileError, match=words):
        open_source(path)


def test_folders_of_n5_are_found_and_others_walked(tmp_path, stack):
    write(tmp_path / "a.n5" / "raw", stack)
    write(tmp_path / "b", stack)
    for name, content in [
        ("c", '{"who": "another program"}'),
        ("d", "no JSON"),
        ("e", "[]"),
        ("g", "[" * 9999),
    ]:
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "attributes.json").write_text(content)
        tifffile.imwrite(tmp_path / name / "inner" / "image.tif", stack)
    (tmp_path / "f.n5").mkdir()
    found = find_sources(tmp_path)
    images = [f"{name}/inner/image.tif" for name in "cdeg"]
    assert [source.name for source in found.sources] == ["a.n5", "b", *images]
    ((path, reason),) = [(item.path.name, item.reason) for item in found.skipped]
    assert path == "f.n5"
    assert "holds no array" in reason


def test_the_extra_is_named(tmp_path, stack, monkeypatch):
    write(tmp_path / "a.n5", stack)
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(UnreadableFileError, match=r"napari-affmae\[n5\].*save it as OME-Zarr"):
        open_source(tmp_path / "a.n5")
