from typing import Any

import pytest
import typer

from napari_affmae.cli.options import Given, build, settings_options
from napari_affmae.config import FinetuneConfig, PretrainConfig, SegmentConfig, Settings
from napari_affmae.settings_fields import setting_fields


def taken(settings: type[Settings], *words: str) -> Given:
    """What a command with the options of `settings` is given for these words."""
    app = typer.Typer()
    seen: list[Given] = []

    @app.command()
    @settings_options(settings)
    def command(*, given: Given) -> None:
        seen.append(given)

    app(list(words), standalone_mode=False)
    return seen[0]


def test_options_that_are_not_given_stay_out() -> None:
    assert taken(PretrainConfig) == {}


def test_values_arrive_in_the_shape_of_the_settings() -> None:
    words = ["--steps", "3", "--batch", "4", "--betas", "0.9,0.95", "--noise", "0.5", "--clahe"]
    config = build(PretrainConfig, taken(PretrainConfig, *words))
    assert (config.steps, config.batch, config.betas) == (3, 4, (0.9, 0.95))
    assert config.normalization.clahe
    assert config.augmentation.noise == 0.5


def test_giving_one_setting_of_a_group_leaves_the_groups_own_defaults() -> None:
    config = build(PretrainConfig, taken(PretrainConfig, "--steps", "3", "--noise", "0.5"))
    default = PretrainConfig(steps=3).augmentation
    assert config.augmentation == default.model_copy(update={"noise": 0.5})


def test_options_that_mean_nothing_any_more_are_taken_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = ["--workers", "2", "--preview-steps", "50", "--steps", "3"]
    assert taken(PretrainConfig, *words) == {"steps": "3"}
    assert "the option workers has no effect" in caplog.text
    assert "the option preview_steps has no effect" in caplog.text


def test_later_layers_win() -> None:
    given = taken(FinetuneConfig, "--steps", "5")
    config = build(FinetuneConfig, {"steps": 3, "crop": 128, "normalization": {"low": 2}}, given)
    assert (config.steps, config.crop, config.normalization.low) == (5, 128, 2)


@pytest.mark.parametrize("switch", ["--no-flips", "--flips"])
def test_switches_have_two_sides(switch: str) -> None:
    assert taken(PretrainConfig, switch) == {"augmentation": {"flips": switch == "--flips"}}


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"steps": "3", "crop": "10"}, ("--crop", "64", "'10'")),
        ({"steps": "3", "batch": "few"}, ("--batch", "integer", "'auto'", "'few'")),
        ({"steps": "3", "normalization": {"low": "70"}}, ("--low", "50")),
        ({"steps": "3", "device": "gpu"}, ("--device", "'gpu'")),
        ({"steps": "3", "preset": "huge"}, ("--preset", "'nano'", "'huge'")),
        ({}, ("steps or minutes",)),
        ({"steps": "3", "minutes": "1"}, ("steps or minutes",)),
        ({"steps": "x", "crop": "y"}, ("--steps", "--crop")),
    ],
)
def test_a_wrong_value_is_told_in_one_line(given: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        build(PretrainConfig, given)
    message = caught.value.format_message()
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("settings", [PretrainConfig, FinetuneConfig, SegmentConfig])
def test_help_says_what_the_settings_say(
    settings: type[Settings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    taken_help = typer.Typer()

    @taken_help.command()
    @settings_options(settings)
    def command(*, given: Given) -> None:
        raise AssertionError(given)

    taken_help(["--help"], standalone_mode=False)
    text = capsys.readouterr().out
    for field in setting_fields(settings):
        assert field.flag in text
        assert field.title in text
