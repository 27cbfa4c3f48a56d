import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_affmae import __version__
from napari_affmae.cli.segment import _tiff_name

Cli = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("Missing command",)),
        (("fly",), ("No such command 'fly'",)),
        (("pretrain",), ("Missing argument", "see napari-affmae pretrain --help")),
        (("pretrain", "{images}", "--out", "run", "--minutes", "inf"), ("--minutes", "finite")),
        (
            ("pretrain", "{images}", "--out", "run", "--steps", "1", "--seed", str(2**128)),
            ("--seed",),
        ),
        (("pretrain", "{images}"), ("--out",)),
        (("pretrain", "{images}", "--out", "run", "--cropp", "64"), ("--cropp", "--crop")),
        (("pretrain", "nowhere", "--out", "run", "--steps", "1"), ("nowhere does not exist",)),
        (("pretrain", "{images}", "--out", "run"), ("steps or minutes",)),
        (
            ("pretrain", "{images}", "--out", "run", "--steps", "1", "--crop", "9"),
            ("--crop", "64", "'9'"),
        ),
        (
            ("pretrain", "{images}", "--out", "run", "--steps", "1", "--axes", "ZY"),
            ("ZY", "axes"),
        ),
        (
            ("finetune", "{images}", "{labels}", "--out", "run", "--steps", "1", "--class", "x"),
            ("--class", "VALUE=NAME", "'x'"),
        ),
        (
            (
                *("finetune", "{images}", "{labels}", "--out", "run", "--steps", "1"),
                *("--class", "1=a=blue"),
            ),
            ("--class", "1=a=blue"),
        ),
        (
            (
                *("finetune", "{images}", "{labels}", "--out", "run", "--steps", "1"),
                *("--class", "0=a", "--class", "1=a"),
            ),
            ("two classes are named 'a'",),
        ),
        (
            (
                *("finetune", "{images}", "{labels}", "--out", "run", "--steps", "1"),
                *("--validation-images", "{images}"),
            ),
            ("--validation-labels",),
        ),
        (("segment", "{images}", "--model", "nowhere", "--out", "o"), ("nowhere does not exist",)),
        (
            ("segment", "{images}", "--model", "{images}", "--out", "o", "--overlap", "2"),
            ("--overlap", "less than 1"),
        ),
        (("import-checkpoint", "nowhere.pth", "--out", "m"), ("nowhere.pth does not exist",)),
        (("info", "nowhere"), ("nowhere does not exist",)),
        (("demo", "--seed", "-1"), ("--seed",)),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(
    cli: Cli,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {"images": data / "images", "labels": data / "labels"}
    done = cli(*(word.format(**paths) for word in words))
    assert done.code == 2
    assert done.err.count("\n") == 1
    for part in parts:
        assert part in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("pretrain", "{empty}", "--out", "run", "--steps", "1"), ("no image", "empty")),
        (
            ("pretrain", "{images}", "--out", "run", "--steps", "1", "--device", "cuda:99"),
            ("cuda:99", "not available"),
        ),
        (("segment", "{images}", "--model", "{empty}", "--out", "o"), ("no model",)),
        (("pretrain", "{begun}", "--out", "run", "--steps", "1"), ("begun", "Start that run")),
        (("info", "{begun}"), ("begun", "ended before its first record", "delete")),
        (("pretrain", "{images}", "--out", "{begun}", "--resume"), ("begun", "start it anew")),
        (("segment", "{images}", "--model", "{begun}", "--out", "o"), ("no model", "begun")),
        (("info", "{odd}"), ("run.json", "config")),
        (("pretrain", "{images}", "--out", "{odd}", "--resume"), ("run.json", "config")),
        (("pretrain", "{images}", "--out", "{empty}", "--resume"), ("no run",)),
        (("info", "{text}"), ("known",)),
        (("import-checkpoint", "{text}", "--out", "m"), ("notes.txt",)),
    ],
)
def test_states_are_one_message_and_code_1(
    cli: Cli,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no weights")
    for name in ("begun", "odd"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").touch()
    odd = {"format": 1, "kind": "pretrain", "created": "2026-01-01T00:00:00", "config": 0}
    (tmp_path / "odd" / "run.json").write_text(json.dumps(odd))
    paths = {"images": data / "images", "empty": "empty", "text": "notes.txt"}
    paths |= {"begun": "begun", "odd": "odd"}
    done = cli(*(word.format(**paths) for word in words))
    assert done.code == 1, done.err
    assert "\nnapari-affmae: " in f"\n{done.err}"
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err


@pytest.mark.parametrize("command", ["", "demo", "pretrain", "finetune", "segment", "evaluate"])
def test_help_exists(cli: Cli, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert done.code == 0
    assert "Usage: napari-affmae" in done.out


def test_the_version_is_told(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.out) == (0, f"napari-affmae {__version__}\n")


def test_the_installed_command_and_the_module_are_the_same() -> None:
    texts = [
        subprocess.run([*command, "--help"], check=True, capture_output=True, text=True).stdout
        for command in (
            [str(Path(sys.executable).with_name("napari-affmae"))],
            [sys.executable, "-m", "napari_affmae"],
        )
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("a/b.ome.tif", "a/b.tif"),
        ("v.h5:/raw/x", "v_raw_x.tif"),
        ("a.nii.gz", "a.tif"),
        ("a.zarr.zip", "a.tif"),
        ("a.b.mrc", "a.b.tif"),
    ],
)
def test_results_have_the_names_of_their_images(name: str, result: str) -> None:
    assert _tiff_name(name) == Path(result)
