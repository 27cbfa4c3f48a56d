"""Which names are read, and what is said of those that are not."""

from importlib.resources import files
from pathlib import Path

import pytest
import tifffile
import yaml

from napari_affmae.data.discovery import find_pairs
from napari_affmae.data.formats.opening.kinds import SUFFIXES, ending_of, stem_of
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError

# These are left to napari and other plugins.
_COMMON = {".tif", ".tiff", ".btf", ".tf8", ".png", ".jpg", ".jpeg", ".bmp", ".npy"}


@pytest.mark.parametrize(
    ("name", "ending", "stem"),
    [
        ("a.tif", ".tif", "a"),
        ("a.b.TIF", ".tif", "a.b"),
        ("a.mrc.gz", ".mrc.gz", "a"),
        ("a.nii.GZ", ".nii.gz", "a"),
        ("a.tar.gz", None, "a.tar"),
        ("a", None, "a"),
        (".tif", None, ".tif"),
    ],
)
def test_endings_and_stems(name, ending, stem):
    assert ending_of(Path(name)) == ending
    assert stem_of(Path(name)) == stem


def test_the_manifest_names_what_napari_does_not_read():
    manifest = yaml.safe_load((files("napari_affmae") / "napari.yaml").read_text("utf-8"))
    (reader,) = manifest["contributions"]["readers"]
    assert set(reader["filename_patterns"]) == {f"*{end}" for end in set(SUFFIXES) - _COMMON}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.czi", "Zeiss.*Bio-Formats"),
        ("a.DCM", "DICOM.*save it as TIFF"),
        ("a.raw", "bare pixels"),
        ("a.npz", "numpy.save"),
        ("a.zip", "unpack it"),
        ("a.docx", "of no known kind; known are"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, name, words):
    (tmp_path / name).touch()
    with pytest.raises(UnreadableFileError, match=words) as caught:
        open_source(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_pairs_of_names_with_two_dots(tmp_path, stack):
    for folder, name in [("images", "a.nii.gz"), ("labels", "a.tif")]:
        (tmp_path / folder).mkdir()
        if name.endswith("tif"):
            tifffile.imwrite(tmp_path / folder / name, stack)
        else:
            nibabel = pytest.importorskip("nibabel")
            image = nibabel.Nifti1Image(stack.transpose(), None)
            image.to_filename(tmp_path / folder / name)
    ((image, labels),) = find_pairs(tmp_path)
    assert image.plane_shape == labels.plane_shape == (5,)
