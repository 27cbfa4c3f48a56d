import subprocess
import sys

import napari_affmae.data


def test_all_names_can_be_imported():
    for name in napari_affmae.data.__all__:
        assert getattr(napari_affmae.data, name) is not None
    assert {"check_sources", "find_sources", "open_source"} <= set(napari_affmae.data.__all__)


def test_importing_the_room_is_cheap():
    code = (
        "import sys, napari_affmae.data as data; "
        "assert not {'torch', 'zarr', 'skimage', 'numpy'} & set(sys.modules); "
        "data.find_sources; "
        "assert not {'torch', 'zarr', 'tifffile', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
