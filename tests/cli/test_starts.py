"""What the commands start from."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_affmae.engine import read_record
from napari_affmae.engine.store.starting_weights import starting_weights

Cli = Callable[..., Any]
SMALL = ("--steps", 1, "--crop", "64", "--batch", "2", "--device", "cpu")


@pytest.fixture
def train(cli: Cli, data: Path, tmp_path: Path) -> Callable[..., Any]:
    """Fine-tune for a step."""

    def run(*words: object) -> Any:
        inputs = (data / "images", data / "labels")
        return cli("finetune", *inputs, "--out", tmp_path / "run", *SMALL, *words)

    return run


def test_without_a_choice_it_starts_from_what_comes_along(train: Any, tmp_path: Path) -> None:
    done = train()
    assert done.code == 0, done.err
    assert "it starts from em-nano" in done.err
    assert read_record(tmp_path / "run")["pretrained"] == "em-nano"


def test_none_is_random_weights(train: Any, tmp_path: Path) -> None:
    done = train("--pretrained", "none")
    assert done.code == 0, done.err
    assert "it starts from nothing learned (random weights)" in done.err
    assert read_record(tmp_path / "run")["pretrained"] is None


def test_a_copy_in_half_precision_is_a_file_like_any_other(train: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    shutil.copy(starting_weights()["em-nano"], copy)
    done = train("--pretrained", copy)
    assert done.code == 0, done.err
    assert read_record(tmp_path / "run")["pretrained"] == str(copy)


def test_a_name_that_is_none_is_refused_with_those_there_are(train: Any, tmp_path: Path) -> None:
    done = train("--pretrained", "em-nanoo")
    assert done.code == 1
    assert "nothing to start from at em-nanoo" in done.err
    assert "em-nano" in done.err.split("come with this program")[1]
    assert not (tmp_path / "run" / "run.json").exists()


def test_pretraining_takes_names_too(cli: Cli, data: Path, tmp_path: Path) -> None:
    for number, words in enumerate(([], ["--start", "em-nano"], ["--start", "none"])):
        run = tmp_path / str(number)
        done = cli("pretrain", data / "images", "--out", run, *SMALL, *words)
        assert done.code == 0, done.err
        assert read_record(run)["start"] == (None if "none" in words else "em-nano")


def test_they_can_be_looked_at(cli: Cli) -> None:
    assert "em-nano" in cli("info").out
    card = cli("info", "em-nano")
    assert card.code == 0
    assert "training: crops" in card.out
