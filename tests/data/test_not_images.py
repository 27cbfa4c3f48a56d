import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr

from napari_affmae.data import find_sources, told
from napari_affmae.data.flatness import looks_like_labels


@pytest.fixture
def grey(stack):
    return stack[0]


@pytest.fixture
def mask(grey):
    mask = np.zeros(grey.shape, np.uint8)
    mask[10:30, 5:40] = 1
    return mask


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **options)


def names(found):
    return [source.name for source in found.sources]


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("s{}", "s{}_mask"),
        ("s{}", "S{}-Labels"),
        ("s{}", "segmented/s{}"),
        ("img{}", "seg{}"),
        ("imagesTr/a{}_0000", "labelsTr/a{}"),
        ("Images/s{}", "Ground Truth/s{}"),
        ("a{}/image", "a{}/mask"),
    ],
)
def test_labels_by_their_names(tmp_path, grey, mask, image, labels):
    for number in range(2):
        write(tmp_path / "set" / f"{image.format(number)}.tif", grey)
        write(tmp_path / "set" / f"{labels.format(number)}.tif", mask)
    found = find_sources(tmp_path / "set")
    assert names(found) == [f"{image.format(number)}.tif" for number in range(2)]
    (line,) = told(found.skipped)
    assert "labels of" in line


def test_several_folders_of_labels_are_told_in_one_line(tmp_path, grey, mask):
    for sample in ("a", "b"):
        write(tmp_path / sample / "images" / "1.tif", grey)
        write(tmp_path / sample / "masks" / "1.tif", mask)
    found = find_sources(tmp_path)
    assert names(found) == ["a/images/1.tif", "b/images/1.tif"]
    (line,) = told(found.skipped)
    assert line.startswith("2 folders, such as ")


def test_labels_are_read_where_they_are_given_alone(tmp_path, grey, mask):
    write(tmp_path / "a.tif", grey)
    write(tmp_path / "a_mask.tif", mask)
    write(tmp_path / "masks" / "b.tif", mask)
    assert names(find_sources(tmp_path / "masks")) == ["b.tif"]
    assert names(find_sources([tmp_path / "a.tif", tmp_path / "a_mask.tif"])) == [
        "a.tif",
        "a_mask.tif",
    ]
    assert len(find_sources(tmp_path, labels=True).sources) == 3


def test_a_name_alone_makes_no_labels(tmp_path, stack):
    write(tmp_path / "seg" / "gt_mask.tif", stack[0])
    write(tmp_path / "label7.tif", stack[1])
    assert len(find_sources(tmp_path).sources) == 2


def test_labels_of_the_same_names_are_seen_by_their_pixels(tmp_path, stack, mask):
    for number in range(3):
        write(tmp_path / "cortex" / f"{number}.tif", stack[number])
        write(tmp_path / "tracing" / f"{number}.tif", (mask * 7).astype(np.uint16))
    found = find_sources(tmp_path)
    assert names(found) == ["cortex/0.tif", "cortex/1.tif", "cortex/2.tif"]
    (line,) = told(found.skipped)
    assert line.startswith("3 files, such as ")
    assert "another folder" in line


def test_a_mask_beside_the_image_of_its_name(tmp_path, grey, mask):
    write(tmp_path / "a.tif", grey)
    iio.imwrite(tmp_path / "a.png", mask)
    assert names(find_sources(tmp_path)) == ["a.tif"]


def test_images_of_the_same_names_in_several_folders_are_kept(tmp_path, stack):
    for number, plane in enumerate(stack):
        write(tmp_path / f"section{number}" / "tile.tif", plane)
    assert len(find_sources(tmp_path).sources) == len(stack)


def test_few_values_without_an_image_beside_them_are_kept(tmp_path, stack, mask):
    write(tmp_path / "a" / "s.tif", mask)
    write(tmp_path / "b" / "s.tif", mask)
    write(tmp_path / "c" / "s.tif", stack[0, :20])
    assert len(find_sources(tmp_path).sources) == 3


def test_labels_by_the_metadata_of_ome_zarr(tmp_path, grey, mask):
    write(tmp_path / "a.tif", grey)
    marks = {"image-label": {"version": "0.4"}}, {"napari-affmae/origin": {}}
    for name, extra in zip(("b", "cells", "done"), ({}, *marks), strict=True):
        group = zarr.open_group(tmp_path / f"{name}.zarr", mode="w", zarr_format=2)
        group.create_array("0", data=mask)
        multiscale = {"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": "0"}]}
        group.attrs.update({"multiscales": [multiscale], **extra})
    found = find_sources(tmp_path)
    assert names(found) == ["a.tif", "b.zarr"]
    assert "by its own metadata" in found.skipped[0].reason
    assert "a result of this program" in found.skipped[1].reason
    assert names(find_sources(tmp_path / "cells.zarr")) == ["cells.zarr"]


def test_areas_of_whole_numbers_look_like_labels(mask, grey):
    rng = np.random.default_rng(0)
    objects = np.repeat(np.repeat(rng.integers(0, 999, (9, 9)), 9, axis=0), 9, axis=1)
    for labels in (mask, mask.astype(np.float32), objects.astype(np.uint64)):
        assert looks_like_labels(labels)
    bordered = np.zeros((400, 400), np.uint8)
    bordered[:40, :56] = grey
    noise = rng.integers(0, 2, (64, 64))
    for image in (grey, bordered, noise, mask * np.float32(0.5), 0 * mask):
        assert not looks_like_labels(image)


def test_files_of_other_kinds_are_counted_with_an_example(tmp_path, grey):
    write(tmp_path / "a.tif", grey)
    for name in ("notes.txt", "deep/more.TXT", "Thumbs.db", ".DS_Store", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    others = find_sources(tmp_path).others
    assert others.counts == {".txt": 2, ".db": 1, "hidden": 1, "without ending": 1}
    assert "2 .txt (" in str(others)
