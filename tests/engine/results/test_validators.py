"""Results judged by validators of OME-Zarr that others have written.

The second one may need other versions of pydantic than napari; ``tox run -e validators`` has it.
"""

import shutil

import numpy as np
import pytest
import zarr
from yaozarrs import validate_zarr_store

from napari_affmae.engine.results.plan import BlockSizes
from napari_affmae.engine.results.volume import Place, Volume


@pytest.fixture(
    params=[((40, 50), "YX"), ((3, 40, 50), "ZYX"), ((2, 3, 40, 50), "TZYX"), ((2, 40, 50), "TYX")]
)
def folders(request, make_plan, fill, tmp_path):
    sizes = BlockSizes(chunk=8, side=16)
    known = {"pixel_size": (4.0, 5.0), "plane_distance": 30.0}
    plan = make_plan(*request.param, sizes=sizes, probabilities="float16", **known)
    place = Place(tmp_path / "a.zarr", tmp_path / "a_probabilities.zarr")
    values = np.zeros(plan.with_classes(plan.shape, 2), np.float16)
    fill(Volume.create(place, plan, "a"), np.full(plan.shape, 2, np.uint8), values)
    return place.folders


def test_yaozarrs_finds_nothing(folders):
    for folder in folders:
        validate_zarr_store(str(folder))
    damaged = shutil.copytree(folders[1], folders[1].with_name("b.zarr"))
    shutil.rmtree(damaged / "1")
    with pytest.raises(ValueError, match="1"):
        validate_zarr_store(str(damaged))


def test_ome_zarr_models_finds_nothing(folders):
    models = pytest.importorskip("ome_zarr_models")
    labels, probabilities = (
        models.open_ome_zarr(zarr.open_group(folder, mode="r"), version="0.5") for folder in folders
    )
    assert type(labels).__name__ == "ImageLabel"
    assert type(probabilities).__name__ == "Image"
