"""NIfTI volumes, written by nibabel."""

import gzip

import nibabel
import numpy as np
import pytest

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.errors import UnreadableFileError


def write(path, array, *, unit="micron", steps=(0.003, 0.004, 0.05), kind=nibabel.Nifti1Image):
    """Write planes of rows and columns along the third axis, the rows along the second."""
    image = kind(array.transpose(), np.eye(4))
    image.header.set_zooms((*steps, 1.0)[: array.ndim])
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "B.NII"])
def test_planes_rows_and_columns(tmp_path, stack, name, kind, assert_reads):
    source = open_source(write(tmp_path / name, stack.astype(np.int16), kind=kind))
    assert_reads(source, stack.astype(np.int16))
    assert source.pixel_size == (4, 3)
    assert source.plane_distance == pytest.approx(50)


@pytest.mark.parametrize(
    ("unit", "steps", "size"),
    [
        ("mm", (4e-6, 4e-6, 4e-5), (4, 4)),
        ("meter", (4e-9, 4e-9, 4e-8), (4, 4)),
        ("unknown", (4, 4, 40), None),
        ("mm", (1, 1, 1), None),
    ],
)
def test_units(tmp_path, stack, unit, steps, size):
    source = open_source(write(tmp_path / "a.nii", stack, unit=unit, steps=steps))
    assert source.pixel_size == (size and pytest.approx(size))
    assert source.plane_distance == (size and pytest.approx(40))


def test_a_single_plane_and_a_series(tmp_path, stack, assert_reads):
    assert_reads(open_source(write(tmp_path / "a.nii", stack[0])), stack[:1])
    series = open_source(write(tmp_path / "b.nii", np.stack([stack, stack // 2])))
    assert series.plane_shape == (2, 5)
    np.testing.assert_array_equal(series.read(6)[0], stack[1] // 2)


@pytest.mark.parametrize("order", ["<", ">"])
def test_stored_numbers_are_scaled_as_the_header_says(tmp_path, stack, order):
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(stack.transpose().astype(np.int16), None, header)
    image.header.set_slope_inter(0.5, 3)
    image.to_filename(tmp_path / "a.nii")
    wanted = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj).transpose()
    source = open_source(tmp_path / "a.nii")
    assert source.dtype == np.float32
    np.testing.assert_allclose(source.read(2)[0], wanted[2])


def test_damaged_and_cut_files(tmp_path, stack):
    path = write(tmp_path / "a.nii", stack)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UnreadableFileError, match="cut short"):
        open_source(path)
    path.write_bytes(b"no image" * 100)
    with pytest.raises(UnreadableFileError, match=r"cannot read .*a\.nii"):
        open_source(path)
    path = write(tmp_path / "b.nii.gz", stack)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-9]))
    with pytest.raises(UnreadableFileError, match="cut short"):
        open_source(path).read(0)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableFileError, match=r"cannot read plane 0 of .*b\.nii\.gz"):
        open_source(path).read(0)


def test_a_header_that_claims_terabytes(tmp_path):
    header = nibabel.Nifti2Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((2_000_000, 2_000_000, 9))
    header["magic"] = b"n+2"
    header["vox_offset"] = 544
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(99))
    with pytest.raises(UnreadableFileError, match="cut short"):
        open_source(tmp_path / "a.nii")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(99)))
    with pytest.raises(UnreadableFileError, match="GiB when it is decoded"):
        open_source(tmp_path / "a.nii.gz")
