import pickle

import mrcfile
import numpy as np

from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.sources.flipped import FlippedSource


def test_rows_are_in_reverse_order(tmp_path, stack, assert_reads):
    mrcfile.write(tmp_path / "a.mrc", stack.astype(np.int16), voxel_size=(30.0, 40.0, 500.0))
    upright = open_source(tmp_path / "a.mrc")
    source = FlippedSource(upright)
    assert_reads(source, stack[:, ::-1].astype(np.int16))
    assert_reads(pickle.loads(pickle.dumps(source)), stack[:, ::-1].astype(np.int16))
    assert_reads(FlippedSource(source), stack.astype(np.int16))
    for attribute in ("name", "path", "files", "pixel_size", "plane_distance", "place"):
        assert getattr(source, attribute) == getattr(upright, attribute)
    assert source.fingerprint() != upright.fingerprint()
    source.close()
    assert source.read(1, slice(7, 7)).shape == (1, 0, 56)


def test_channels_and_several_axes_of_planes(stack):
    array = np.stack([[stack, 255 - stack]] * 2)
    upright = open_source(array, axes="TCZYX", channels=[1, 0])
    source = FlippedSource(upright)
    assert source.plane_shape == (2, 5)
    np.testing.assert_array_equal(source.read(8), upright.read(8)[:, ::-1])
    np.testing.assert_array_equal(
        source.read(8, slice(1, 4), slice(2, 9)), upright.read(8)[:, ::-1][:, 1:4, 2:9]
    )
