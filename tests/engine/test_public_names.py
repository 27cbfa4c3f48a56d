import subprocess
import sys

import napari_affmae.engine


def test_all_names_can_be_imported():
    for name in napari_affmae.engine.__all__:
        assert getattr(napari_affmae.engine, name) is not None
    assert {"events", "pretrain", "segment"} <= set(napari_affmae.engine.__all__)


def test_importing_the_room_is_cheap():
    code = (
        "import sys, napari_affmae.engine as engine; "
        "assert not {'torch', 'lightning_fabric', 'numpy', 'pydantic'} & set(sys.modules); "
        "engine.list_runs; "
        "assert not {'torch', 'lightning_fabric'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
