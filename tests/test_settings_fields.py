import pytest
from pydantic import ValidationError

from napari_affmae.config import (
    FinetuneConfig,
    ObjectsConfig,
    PretrainConfig,
    QuickConfig,
    SegmentConfig,
    Settings,
)
from napari_affmae.settings_fields import build_settings, nest, problems, setting_fields

EVERY = (PretrainConfig, FinetuneConfig, QuickConfig, SegmentConfig, ObjectsConfig)


@pytest.mark.parametrize("settings", EVERY)
def test_every_field_says_what_it_is_under_a_flag_of_its_own(settings: type[Settings]) -> None:
    fields = list(setting_fields(settings))
    assert all(field.title and field.description for field in fields)
    # Groups share the command line with what is around them.
    assert len({field.flag for field in fields}) == len(fields)


def test_fields_of_groups_have_paths_and_the_defaults_of_the_whole() -> None:
    config = PretrainConfig(steps=1)
    for field in setting_fields(PretrainConfig):
        if field.name != "steps":
            assert field.value_in(config) == field.default
    paths = {field.path for field in setting_fields(PretrainConfig)}
    assert ("augmentation", "noise") in paths
    assert ("augmentation",) not in paths


def test_what_a_value_may_be() -> None:
    fields = {field.name: field for field in setting_fields(PretrainConfig)}
    assert (fields["crop"].kinds, fields["crop"].low, fields["crop"].high) == ((int,), 64, 16384)
    assert (fields["mask_ratio"].low, fields["mask_ratio"].high) == (0, 1)
    assert fields["minutes"].kinds == (float,)
    assert (fields["batch"].kinds[0], fields["batch"].choices) == (int, ("auto",))
    assert "cuda" in fields["device"].examples


def test_problems_name_the_field_that_they_are_about() -> None:
    values = nest({("normalization", "low"): 70, ("cropp",): 1})
    with pytest.raises(ValidationError) as caught:
        build_settings(PretrainConfig, values)
    found = {
        problem.name: problem.field and problem.field.title
        for problem in problems(caught.value, PretrainConfig)
    }
    assert found == {"normalization": "Low percentile", "cropp": None}
