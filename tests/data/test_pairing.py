import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from napari_affmae.data import find_pairs
from napari_affmae.data.pairing import match
from napari_affmae.errors import DataError


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array)


def files(folder, names):
    return {name: Path(folder, f"{name}.tif") for name in names}


def matched(images, labels):
    pairs, note = match(files("images", images), files("labels", labels))
    return {name: labels.stem for name, (_, labels) in pairs.items()}, note


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["s0", "s1"], ["s0_mask", "s1_mask"]),
        (["s0", "s1"], ["s0-labels", "s1-labels"]),
        (["a_0000", "b_0000"], ["a", "b"]),
        (["img_01", "img_02"], ["mask_01", "mask_02"]),
        (["image_s1", "image_s2"], ["label_s1", "label_s2"]),
        (["x1_raw", "x2_raw"], ["x1_gt", "x2_gt"]),
        (["s1", "s2"], ["tk_s1_done", "tk_s2_done"]),
        (["s9", "s10"], ["s9_seg", "s10_seg"]),
    ],
)
def test_one_beginning_and_ending_explain_every_pair(images, labels):
    pairs, note = matched(images, labels)
    assert pairs == dict(zip(images, labels, strict=True))
    assert labels[0] in note


def test_names_that_are_equal_need_no_note():
    assert matched(["a", "b"], ["a", "b"]) == ({"a": "a", "b": "b"}, None)
    assert matched(["a"], ["b"]) == ({"a": "b"}, None)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["mouseA_1", "mouseA_2"], ["mouseB_1", "mouseB_2"]),
        (["s1", "s2"], ["s11", "s12"]),
        (["a", "b"], ["a_mask", "b_label"]),
        (["a", "b"], ["a_mask", "b_mask", "c_mask"]),
        (["a", "b"], ["a_mask", "a_label"]),
        (["s1", "s2"], ["s1", "t2"]),
        (["a/1", "b/1"], ["a/1_mask", "c/1_mask"]),
    ],
)
def test_names_that_leave_a_doubt_are_refused_with_both(images, labels):
    with pytest.raises(DataError, match="of the same name: ") as caught:
        matched(images, labels)
    assert str(Path("labels", f"{labels[0]}.tif")) in str(caught.value)


def test_affixes_in_folders(tmp_path, stack):
    for number in range(2):
        write(tmp_path / "images" / "x" / f"{number}_0000.tif", stack[number])
        write(tmp_path / "labels" / "x" / f"{number}.tif", stack[number])
    sentences = []
    pairs = find_pairs(tmp_path, tell=sentences.append)
    assert [image.name for image, _ in pairs] == ["x/0_0000", "x/1_0000"]
    assert [labels.path.name for _, labels in pairs] == ["0.tif", "1.tif"]
    assert len(sentences) == 1


def test_images_and_labels_in_one_folder(tmp_path, stack):
    for number in range(2):
        write(tmp_path / f"{number}.tif", stack[number])
        write(tmp_path / f"{number}_mask.tif", stack[number])
    pairs = find_pairs(tmp_path, tmp_path)
    assert [labels.path.name for _, labels in pairs] == ["0_mask.tif", "1_mask.tif"]


def test_labels_in_a_folder_below_the_images(tmp_path, stack):
    for number in range(2):
        write(tmp_path / f"{number}.tif", stack[number])
        write(tmp_path / "done" / f"{number}.tif", stack[number])
    pairs = find_pairs(tmp_path, tmp_path / "done")
    assert [image.path.parent.name for image, _ in pairs] == [tmp_path.name] * 2


def test_the_same_files_as_images_and_labels_are_refused(tmp_path, stack):
    for number in range(2):
        write(tmp_path / "a" / f"{number}.tif", stack[number])
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    with pytest.raises(DataError, match="the same files"):
        find_pairs(tmp_path / "a", tmp_path / "a")
    for one, other in (("a", "link"), ("a/0.tif", "link/0.tif")):
        with pytest.raises(DataError, match="as an image and as its labels"):
            find_pairs(tmp_path / one, tmp_path / other)


def test_folders_in_the_wrong_order_are_refused(tmp_path, stack):
    for folder in ("images", "masks"):
        write(tmp_path / folder / "a.tif", stack)
    with pytest.raises(DataError, match="look swapped"):
        find_pairs(tmp_path / "masks", tmp_path / "images")


def test_arrays_of_the_same_names_in_every_file_of_a_folder(tmp_path, stack):
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["raw"] = stack
            file["label"] = stack > 100
    write(tmp_path / "overview.tif", stack)
    pairs = find_pairs(f"{tmp_path}:/raw", f"{tmp_path}:/label")
    assert [image.name for image, _ in pairs] == ["a", "deep/b"]
    for image, labels in pairs:
        np.testing.assert_array_equal(image.read(1)[0], stack[1])
        np.testing.assert_array_equal(labels.read(1)[0], stack[1] > 100)
    with pytest.raises(DataError, match="name the arrays"):
        find_pairs(tmp_path, tmp_path)


def test_what_is_left_out_is_told(tmp_path, stack):
    write(tmp_path / "images" / "a.tif", stack)
    write(tmp_path / "labels" / "a.tif", stack)
    (tmp_path / "images" / "loop").symlink_to(tmp_path / "images", target_is_directory=True)
    sentences = []
    assert len(find_pairs(tmp_path, tell=sentences.append)) == 1
    assert "loop" in sentences[0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_names_that_are_not_utf_8(tmp_path, stack):
    for folder, ending in (("images", ""), ("labels", "_mask")):
        (tmp_path / folder).mkdir()
        for number in range(2):
            tifffile.imwrite(tmp_path / "a.tif", stack[number])
            name = os.fsdecode(b"sch\xf6n%d" % number) + f"{ending}.tif"
            (tmp_path / "a.tif").rename(tmp_path / folder / name)
    pairs = find_pairs(tmp_path)
    for number, (image, labels) in enumerate(pairs):
        np.testing.assert_array_equal(image.read(0), labels.read(0))
        assert os.fsencode(image.name) == b"sch\xf6n%d" % number


def test_nothing_found_says_what_is_there(tmp_path):
    for name in ("a.czi", "b.czi"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"2 \.czi \(a\.czi is Zeiss"):
        find_pairs(tmp_path, tmp_path)


def test_labels_of_the_same_layout_as_their_image(tmp_path, stack):
    write(tmp_path / "images" / "a.tif", stack[:, None])
    write(tmp_path / "labels" / "a.tif", stack[:, None])
    write(tmp_path / "labels" / "b.tif", stack)
    write(tmp_path / "images" / "b.tif", stack[:, None])
    for _, labels in find_pairs(tmp_path, axes="ZCYX"):
        assert (labels.n_planes, labels.n_channels) == (5, 1)
    ((_, labels),) = find_pairs(
        tmp_path / "images" / "a.tif", tmp_path / "labels" / "b.tif", label_axes="CYX"
    )
    assert (labels.n_planes, labels.n_channels) == (1, 5)
