"""The record of a run on disk: its settings, its progress and its results.

::

    run.json                   kind, settings and versions
    run_data.jsonl             one line for each image, and for its labels
    run_validation_planes.jsonl
                               of a fine-tuning, one line for each image
    metrics.jsonl              one line for each step, validation or change of micro-batch
    previews/                  pictures, npz and png
    checkpoints/step_00000100/ model.safetensors, optimizer.safetensors, state.json
    model.safetensors          the trained model, written at the end
"""

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from types import TracebackType
from typing import Any, Literal, Self

from filelock import FileLock, Timeout
from pydantic import ValidationError

from napari_affmae.config import RUN_FILE, FinetuneConfig, PretrainConfig, TrainingConfig
from napari_affmae.engine.store.checkpoints import (
    MODEL_FILE,
    checkpoint_path,
    clean_leftovers,
    list_checkpoints,
    prune_checkpoints,
    save_checkpoint,
)
from napari_affmae.engine.store.lists import ListKind
from napari_affmae.engine.store.previews import PREVIEWS
from napari_affmae.engine.store.records import (
    DATA,
    FORMAT,
    VALIDATION_PLANES,
    parse_measurement,
    parse_record,
    reason,
)
from napari_affmae.errors import AffmaeError, CheckpointError, UnwritableError
from napari_affmae.files import remove_leftovers, replace_bytes, to_json, write_errors

logger = logging.getLogger(__name__)

Kind = Literal["pretrain", "finetune"]
METRICS_FILE = "metrics.jsonl"
LOCK_FILE = ".lock"
_CONFIGS: dict[str, type[PretrainConfig] | type[FinetuneConfig]] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
}
_LISTS: dict[str, ListKind[Any]] = {"data": DATA, "validation_planes": VALIDATION_PLANES}
_KEEP_LAST = 2


class RunFolder:
    """A run on disk, open for one process.

    Use it as a context manager: it holds a lock, which the system releases
    even where the process is killed.

    Parameters
    ----------
    path : Path
        The run folder; made where it does not exist, and removed again where no
        run was recorded in it.

    Attributes
    ----------
    is_new : bool
        Whether no run had ever begun in it.

    Raises
    ------
    UnwritableError
        If it cannot be made or written, or a part of it is a link.
    AffmaeError
        If another process writes to it.
    """

    def __init__(self, path: Path) -> None:
        self._look_at(path)
        with write_errors(path):
            self._made = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
        self._refuse_links()
        # Not local to the thread: a generator may be closed in another thread than it ran in.
        self._lock = FileLock(path / LOCK_FILE, thread_local=False)

    def _look_at(self, path: Path) -> None:
        """Note what lies where, without writing."""
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.previews = path / PREVIEWS
        self.metrics = path / METRICS_FILE
        self.is_new = not any((path / name).exists() for name in (LOCK_FILE, RUN_FILE))

    def __enter__(self) -> Self:
        with write_errors(self.path):
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise AffmaeError(
                    f"another process is writing to the run {self.path}; "
                    "stop it or choose another folder"
                ) from error
            clean_leftovers(self.checkpoints)
            for place in (self.path / RUN_FILE, self.metrics, self.model):
                remove_leftovers(place)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.holds_run() or self.checkpoints.exists():
            self._lock.release()
        else:
            self._vanish()

    def _refuse_links(self) -> None:
        """Refuse to write, and to delete old checkpoints, in another place than the run folder."""
        for path in (self.path / LOCK_FILE, self.metrics, self.checkpoints, self.previews):
            if path.is_symlink():
                raise UnwritableError(
                    f"{path} is a link, and a run writes and deletes in its own folder alone: "
                    "put what it points to in its place, or choose another folder",
                    path,
                )

    def _vanish(self) -> None:
        """Remove the folder of a run that never began, which would be listed as a run."""
        with suppress(OSError):  # Windows deletes no file that is open, but does so on release
            (self.path / LOCK_FILE).unlink(missing_ok=True)
        self._lock.release()
        if self._made:
            with suppress(OSError):  # another program has put something there
                for kind in _LISTS.values():
                    (self.path / kind.first).unlink(missing_ok=True)
                self.path.rmdir()

    @property
    def model(self) -> Path:
        """Path of the run's exported model."""
        return self.path / MODEL_FILE

    def holds_run(self) -> bool:
        """Return whether a run was started here."""
        return (self.path / RUN_FILE).exists()

    def write_record(self, kind: Kind, config: TrainingConfig, facts: Mapping[str, Any]) -> None:
        """Write the settings of the run, and what it has derived from them.

        Parameters
        ----------
        kind : {"pretrain", "finetune"}
            What the run does.
        config : TrainingConfig
            Its settings.
        facts : Mapping[str, Any]
            Plain data that stays the same for the whole run: data, batch, classes. Lists
            with an entry an image go into files beside the record.
        """
        lists = {
            name: kind_of_list.write(self.path, facts[name])
            for name, kind_of_list in _LISTS.items()
            if name in facts
        }
        record = {
            "format": FORMAT,
            "kind": kind,
            "created": _now(),
            "versions": versions(),
            "config": config.model_dump(mode="json"),
            **facts,
            **lists,
        }
        replace_bytes(self.path / RUN_FILE, to_json(record))

    def update_record(self, **changes: Any) -> None:
        """Replace entries of the record."""
        replace_bytes(self.path / RUN_FILE, to_json({**read_record(self.path), **changes}))

    def note_resumed(self, config: TrainingConfig, data: Sequence[Mapping[str, Any]]) -> None:
        """Add to the record how a run was resumed; the entries of its start stay.

        Only data that are not those of the start are written.

        Parameters
        ----------
        config : TrainingConfig
            The settings from now on.
        data : Sequence[Mapping[str, Any]]
            From `resuming.describe`.
        """
        record = read_record(self.path)
        session: dict[str, Any] = {"date": _now(), "versions": versions()}
        before = record.get("resumed", [])
        if not DATA.is_same(record["data"], data):
            session["data"] = DATA.write(self.path, data, number=len(before) + 2)
        sessions = [*before, session]
        self.update_record(config=config.model_dump(mode="json"), resumed=sessions)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one line of measurements."""
        with write_errors(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(line)) + "\n")

    def cut_metrics(self, step: int, validated: int | None) -> list[dict[str, Any]]:
        """Remove the measurements that a resumed run will repeat, and an incomplete last line.

        Parameters
        ----------
        step : int
            Last step that is kept.
        validated : int or None
            Step of the last validation that is kept, if any is.

        Returns
        -------
        list[dict[str, Any]]
            What is kept; see `read_metrics`.
        """
        if not self.metrics.exists():
            return []
        last = -1 if validated is None else validated
        kept = [
            line
            for line in read_metrics(self.path)
            if line["step"] <= (last if line["event"] == "validation" else step)
        ]
        replace_bytes(self.metrics, "".join(json.dumps(line) + "\n" for line in kept).encode())
        return kept

    def save(
        self,
        step: int,
        model: bytes,
        optimizer: bytes,
        state: Mapping[str, Any],
        best: int | None,
    ) -> Path:
        """Write a checkpoint and delete those that are neither recent nor the best.

        Parameters
        ----------
        step, model, optimizer, state
            See `checkpoints.save_checkpoint`.
        best : int, optional
            Step of the best checkpoint so far.

        Returns
        -------
        Path
            Folder of the checkpoint.

        Raises
        ------
        DiskFullError
            If there is no room; earlier checkpoints are intact.
        """
        if self.metrics.exists():
            with self.metrics.open("rb") as file:  # it must be on disk before the next step is made
                os.fsync(file.fileno())
        path = save_checkpoint(self.checkpoints, step, model, optimizer, state)
        recent = list_checkpoints(self.checkpoints)[-_KEEP_LAST:]
        prune_checkpoints(self.checkpoints, [*recent, best])
        return path

    def latest(self) -> Path | None:
        """Return the folder of the last checkpoint, or None before the first."""
        steps = list_checkpoints(self.checkpoints)
        return checkpoint_path(self.checkpoints, steps[-1]) if steps else None


def _plain(value: Any) -> Any:
    """Make a value JSON; NaN and infinity, which JSON does not have, become null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of the programs that a run's results depend on."""
    names = ("napari-affmae", "torch", "numpy")
    return {"python": python_version(), **{name: version(name) for name in names}}


def read_record(run: Path) -> dict[str, Any]:
    """Read a run's ``run.json``.

    Parameters
    ----------
    run : Path
        The run folder.

    Raises
    ------
    CheckpointError
        If there is no run, its record is damaged, or a newer version of the program wrote it.
    """
    path = run / RUN_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(_no_record(run)) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    return parse_record(content, str(path))


def never_began(path: Path) -> bool:
    """Return whether a folder is that of a run which has no record, for instance by a kill."""
    return (path / LOCK_FILE).is_file() and not (path / RUN_FILE).exists()


def _no_record(run: Path) -> str:
    if never_began(run):
        return (
            f"{run} is the folder of a run that ended before its first record ({RUN_FILE}), so "
            "there is nothing to go on with: start it anew in the same folder, without resuming, "
            "or delete the folder"
        )
    return f"{run} holds no run: {RUN_FILE} is missing"


def read_config(run: Path) -> PretrainConfig | FinetuneConfig:
    """Read the settings of a run.

    Parameters
    ----------
    run : Path
        The run folder.

    Raises
    ------
    CheckpointError
        If there is no run or its settings cannot be read.
    """
    record = read_record(run)
    kind = _CONFIGS[record["kind"]]
    try:
        settings = {name: v for name, v in record["config"].items() if name not in kind.retired}
        return kind.model_validate_json(json.dumps(settings))
    except ValidationError as error:
        raise CheckpointError(
            f"cannot read the settings in {run / RUN_FILE}: {reason(error)}"
        ) from error


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read all complete lines of a run's ``metrics.jsonl``.

    Parameters
    ----------
    run : Path
        The run folder.

    Returns
    -------
    list[dict[str, Any]]
        Each with ``event`` (``"step"``, ``"validation"``, ``"pool"`` or ``"micro_batch"``)
        and ``step``.

    Raises
    ------
    CheckpointError
        If a line is damaged.
    """
    path = run / METRICS_FILE
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    # A line without its end was being written when the process was killed.
    return [
        parse_measurement(line, f"line {number} of {path}")
        for number, line in enumerate(lines[:-1], 1)
    ]
