"""Checkpoints: folders that are renamed to their place when they are complete."""

import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from napari_affmae.errors import CheckpointError
from napari_affmae.files import (
    parse_json,
    remove_entry,
    sync_folder,
    to_json,
    write_bytes,
    write_errors,
)

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
CHECKPOINT_FILES = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE)
_ASIDE = ".aside"
_NAME = re.compile(r"step_(\d{8,})")
_LEFTOVER = re.compile(rf"\.step_\d{{8,}}(\.new|\.old|{re.escape(_ASIDE)})")


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step.

    Parameters
    ----------
    folder : Path
        The run's ``checkpoints`` folder.
    step : int
        Number of optimiser steps made.
    """
    return folder / f"step_{step:08d}"


def list_checkpoints(folder: Path) -> list[int]:
    """List the steps of the complete checkpoints, ascending.

    Parameters
    ----------
    folder : Path
        The run's ``checkpoints`` folder; it may be missing.
    """
    if not folder.is_dir():
        return []
    matches = (_NAME.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def save_checkpoint(
    folder: Path,
    step: int,
    model: bytes,
    optimizer: bytes,
    state: Mapping[str, Any],
) -> Path:
    """Write a checkpoint; a kill at any moment leaves it complete or absent.

    Parameters
    ----------
    folder : Path
        The run's ``checkpoints`` folder.
    step : int
        Number of optimiser steps made.
    model : bytes
        Content of the model file.
    optimizer : bytes
        Content of the file of the optimiser's state.
    state : Mapping[str, Any]
        Everything else, as plain data.

    Returns
    -------
    Path
        Folder of the checkpoint.

    Raises
    ------
    DiskFullError
        If there is no room; other checkpoints are intact.
    """
    path = checkpoint_path(folder, step)
    # The leading dot keeps it out of every listing until it is renamed.
    temporary = folder / f".{path.name}.new"
    files = {MODEL_FILE: model, OPTIMIZER_FILE: optimizer, STATE_FILE: to_json(dict(state))}
    try:
        with write_errors(path, sum(map(len, files.values()))):
            folder.mkdir(parents=True, exist_ok=True)
            remove_entry(temporary)
            temporary.mkdir()
            for name, content in files.items():
                write_bytes(temporary / name, content)
            sync_folder(temporary)
            _move(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder)
    return path


def prune_checkpoints(folder: Path, keep: Collection[int | None]) -> None:
    """Delete all checkpoints except those of the given steps.

    Parameters
    ----------
    folder : Path
        The run's ``checkpoints`` folder.
    keep : Collection[int | None]
        Steps to keep; None stands for nothing.
    """
    for step in list_checkpoints(folder):
        if step not in keep:
            _remove(checkpoint_path(folder, step))


def clean_leftovers(folder: Path) -> None:
    """Delete the remains of interrupted writes and deletions; undo interrupted replacements.

    Parameters
    ----------
    folder : Path
        The run's ``checkpoints`` folder; it may be missing.
    """
    leftovers = [path for path in folder.glob(".step_*") if _LEFTOVER.fullmatch(path.name)]
    for leftover in leftovers:
        path = folder / leftover.name.removeprefix(".").removesuffix(_ASIDE)
        if leftover.name.endswith(_ASIDE) and not path.exists():
            leftover.replace(path)
        else:
            remove_entry(leftover)


def read_state(path: Path) -> dict[str, Any]:
    """Read the plain data of a checkpoint.

    Parameters
    ----------
    path : Path
        Folder of the checkpoint.

    Raises
    ------
    CheckpointError
        If it is missing or damaged.
    """
    try:
        state = parse_json((path / STATE_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(path / STATE_FILE, error) from error
    if not isinstance(state, dict):
        raise damaged(path / STATE_FILE, "it holds no JSON object")
    return state


def damaged(path: Path, reason: object) -> CheckpointError:
    """Make the error of a file that cannot be read."""
    return CheckpointError(
        f"cannot read {path}: {reason}. If it is damaged, delete the folder "
        f"{path.parent} to go on from the checkpoint before it"
    )


def _move(temporary: Path, path: Path) -> None:
    """Rename a complete checkpoint to its place; it may replace one of the same step."""
    if not path.exists():
        temporary.replace(path)
        return
    aside = path.with_name(f".{path.name}{_ASIDE}")
    path.replace(aside)
    temporary.replace(path)
    remove_entry(aside)


def _remove(path: Path) -> None:
    """Delete a checkpoint; it is renamed first, because deleting takes several steps."""
    hidden = path.with_name(f".{path.name}.old")
    path.replace(hidden)
    remove_entry(hidden)
