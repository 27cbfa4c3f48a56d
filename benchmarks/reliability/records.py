"""Damage the records of a run at random; reading them gives values or documented errors."""

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from napari_affmae.cli.info import run_info
from napari_affmae.engine import list_runs, load_model, read_config, read_metrics, read_record
from napari_affmae.engine.store.checkpoints import list_checkpoints
from napari_affmae.engine.store.run_state import RunState
from napari_affmae.errors import AffmaeError

KEY = "napari-affmae"
ODD = (
    *(None, True, 0, -1, 5, 10**6, 10**12, 2**64, 10**30, 0.0, -0.5, 1e300, float("nan")),
    *(float("inf"), "", "text", "5", "0001-01-01", "\udce9\x1b[2J", [], [5], {}, {"a": 5}),
)


def damage_value(value: Any, chance: random.Random) -> Any:
    """Replace, remove or add one thing somewhere inside JSON data."""
    inside = list(value.items()) if isinstance(value, dict) else []
    inside = list(enumerate(value)) if isinstance(value, list) else inside
    if not inside or chance.random() < 0.3:
        return chance.choice(ODD)
    key, item = chance.choice(inside)
    copy = value.copy()
    what = chance.random()
    if what < 0.15:
        del copy[key]
    elif what < 0.2 and isinstance(copy, dict):
        copy[chance.choice(("", "a", "step"))] = chance.choice(ODD)
    else:
        copy[key] = damage_value(item, chance)
    return copy


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """Cut, overwrite or repeat a few bytes."""
    start = chance.randrange(len(content) or 1)
    stop = start + chance.choice((1, 3, 40))
    new = chance.choice((b"", b"\xff", b"\0", b"{", b"\n", b'"', b"9" * 40, b"[" * 9000))
    return content[:start] + (new + content[stop:] if chance.random() < 0.8 else b"")


def damage_json(path: Path, chance: random.Random) -> None:
    """Damage the data or the text of a JSON file, or of one of many lines of JSON."""
    content = path.read_bytes()
    if chance.random() < 0.4:
        path.write_bytes(damage_bytes(content, chance))
    elif path.suffix == ".jsonl":
        lines = content.splitlines()
        number = chance.randrange(len(lines))
        lines[number] = json.dumps(damage_value(json.loads(lines[number]), chance)).encode()
        path.write_bytes(b"\n".join(lines) + b"\n")
    else:
        path.write_text(json.dumps(damage_value(json.loads(content), chance)))


def damage_model(path: Path, chance: random.Random) -> None:
    """Damage what a model file says, or the start of the file, where its shapes stand."""
    if chance.random() < 0.3:
        content = path.read_bytes()
        path.write_bytes(damage_bytes(content[:9000], chance) + content[9000:])
        return
    with safe_open(path, "np") as opened:
        said = json.loads(opened.metadata()[KEY])
    save_file(load_file(path), path, {KEY: json.dumps(damage_value(said, chance))})


def read_all(run: Path) -> list[Exception]:
    """Read everything; return what is neither a value nor a documented error."""
    last = run / "checkpoints" / f"step_{list_checkpoints(run / 'checkpoints')[-1]:08d}"
    wrong: list[Exception] = []
    for read, path in (
        (read_record, run),
        (read_config, run),
        (read_metrics, run),
        (RunState.read, last),
        (list_runs, run.parent),
        (load_model, run / "model.safetensors"),
        (lambda path: run_info(path, None), run),
    ):
        try:
            read(path)  # type: ignore[operator]
        except AffmaeError as error:
            if read is list_runs:
                wrong.append(error)
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            wrong.append(error)
    return wrong


def hunt(whole: Path, count: int, seed: int = 0) -> list[str]:
    """Damage copies of a run `count` times; describe each time that the reading went wrong."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            chance = random.Random(1000 * seed + number)
            run = Path(place) / "runs" / "run"
            shutil.copytree(whole, run)
            files = ["run.json", "metrics.jsonl", "model.safetensors", "state.json"]
            name = chance.choice(files)
            (path, *_) = sorted(run.rglob(name), key=lambda path: (len(path.parts), path))[
                :: -1 if name == "state.json" else 1
            ]
            (damage_model if path.suffix == ".safetensors" else damage_json)(path, chance)
            found += [f"{number} ({name}): {error!r}" for error in read_all(run)]
            shutil.rmtree(run.parent)
    return found
