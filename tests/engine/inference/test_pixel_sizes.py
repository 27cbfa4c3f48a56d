import pytest

from napari_affmae.config import SegmentConfig
from napari_affmae.data import open_source
from napari_affmae.engine import evaluate, finetune, pretrain, read_metadata, segment
from napari_affmae.engine.events import Notice
from napari_affmae.engine.inference.pixel_sizes import common_pixel_size


@pytest.fixture(scope="module")
def of_size(volume):
    def make(size, part=0):
        source = open_source(volume[part], axes="ZYX", name=f"pixels of {size}")
        source.pixel_size = None if size is None else (size, size)
        return source

    return make


@pytest.fixture(scope="module")
def models(tmp_path_factory, of_size, pretrain_config, finetune_config):
    """A pretraining and a fine-tuning run on pixels of 5 nm; the latter's notices are none."""
    root = tmp_path_factory.mktemp("sizes")
    short = {"steps": 1}
    list(pretrain([of_size(5.0)], pretrain_config.model_copy(update=short), root / "pretrain"))
    config = finetune_config.model_copy(update=short)
    pairs = [(of_size(6.0), of_size(6.0, part=1))]
    events = list(finetune(pairs, config, root / "finetune", pretrained=root / "pretrain"))
    assert not sizes_told(events)
    return root / "pretrain", root / "finetune"


def sizes_told(events):
    return [e.message for e in events if isinstance(e, Notice) and "nm" in e.message]


@pytest.mark.parametrize(
    ("sizes", "common"),
    [((5.0, 5.1), (5.0, 5.0)), ((5.0, 6.0), None), ((5.0, None), None), ((None,), None)],
)
def test_the_size_that_all_have(of_size, sizes, common):
    assert common_pixel_size(map(of_size, sizes)) == common


def test_models_say_what_they_were_trained_on(models):
    assert [read_metadata(path).pixel_size for path in models] == [(5.0, 5.0), (6.0, 6.0)]


@pytest.mark.parametrize(("size", "told"), [(6.0, 0), (8.0, 0), (None, 0), (12.0, 1), (3.0, 1)])
def test_other_sizes_are_told_in_segmentation(models, of_size, size, told):
    notices = sizes_told(segment(of_size(size), models[1], SegmentConfig(device="cpu")))
    assert len(notices) == told
    for notice in notices:
        assert f"{size:g} x {size:g} nm" in notice
        assert "6 x 6 nm" in notice


def test_other_sizes_are_told_in_evaluation_and_fine_tuning(
    models, of_size, tmp_path, finetune_config
):
    pairs, seen = [(of_size(20.0), of_size(20.0, part=1))], []
    evaluate(pairs, models[1], SegmentConfig(device="cpu"), seen.append)
    assert len(sizes_told(seen)) == 1
    events = finetune(pairs, finetune_config, tmp_path / "run", pretrained=models[0])
    assert "5 x 5 nm" in next(event for event in events if isinstance(event, Notice)).message
    events.close()
