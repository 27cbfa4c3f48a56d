"""Renaming, deleting and exporting runs and model files."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from napari_affmae.config import RUN_FILE
from napari_affmae.engine.store.checkpoints import CHECKPOINT_FILES, MODEL_FILE
from napari_affmae.engine.store.lists import LIST_NAME
from napari_affmae.engine.store.metadata import model_path, read_metadata
from napari_affmae.engine.store.registry import MODEL_SUFFIX, is_model_file, is_run
from napari_affmae.engine.store.run_folder import LOCK_FILE, METRICS_FILE
from napari_affmae.engine.store.run_names import check_name
from napari_affmae.errors import AffmaeError
from napari_affmae.files import TEMPORARY, replace_bytes

_SHOWN_FILES = 3
_TOP = "|".join(map(re.escape, (RUN_FILE, LOCK_FILE, METRICS_FILE, MODEL_FILE)))
_IN_CHECKPOINT = "|".join(map(re.escape, CHECKPOINT_FILES))
# Every file that a run writes, also the remains of interrupted writes.
_KNOWN = re.compile(
    rf"\.?({_TOP})(\.new)?"
    rf"|{LIST_NAME}"
    rf"|(previews/)?{TEMPORARY.pattern}"
    r"|previews/\.?step_\d{8,}\.(npz|png)(\.new)?"
    rf"|checkpoints/\.?step_\d{{8,}}(\.new|\.old|\.aside)?/({_IN_CHECKPOINT})"
)


def rename_run(run: Path, name: str) -> Path:
    """Give a run folder or model file another name in the same folder.

    Parameters
    ----------
    run : Path
        Run folder or model file.
    name : str
        The new name, without the ending of model files, which they keep.

    Returns
    -------
    Path
        The new path.

    Raises
    ------
    ValueError
        If the name is not a plain file name.
    AffmaeError
        If the name is taken, there is no run, or it is in use.
    """
    check_name(name)
    _check_ours(run)
    name = name.removesuffix(MODEL_SUFFIX)
    folder, file = run.with_name(name), run.with_name(name + MODEL_SUFFIX)
    target = file if run.is_file() else folder
    if target == run:
        return run
    for taken in (folder, file):  # lists show both under the same name
        # A name that differs in upper and lower case alone may be the same file.
        if taken.exists() and not taken.samefile(run):
            raise AffmaeError(f"{taken} already exists; choose another name than {name!r}")
    _check_unused(run)
    with _file_errors(run, "renamed"):
        return run.rename(target)


def delete_run(run: Path) -> None:
    """Delete a run folder or a model file permanently.

    Parameters
    ----------
    run : Path
        Run folder or model file.

    Raises
    ------
    AffmaeError
        If it is not a run or model, holds files that no run writes, or is in use.
        Nothing is deleted then.
    """
    _check_ours(run)
    if run.is_file():
        with _file_errors(run, "deleted"):
            run.unlink()
        return
    files, folders, foreign = _contents(run)
    if foreign:
        more = len(foreign) - _SHOWN_FILES
        names = ", ".join(foreign[:_SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")
        raise AffmaeError(
            f"{run} holds files that are not part of a run: {names}. "
            "Move them elsewhere, then delete the run"
        )
    _check_unused(run)
    with _file_errors(run, "deleted"):
        # The record is deleted last, so that a run is still listed if this fails.
        for file in sorted(files, key=lambda path: path.name in (RUN_FILE, LOCK_FILE)):
            file.unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()


def export_model(run: Path, target: Path, *, overwrite: bool = False) -> Path:
    """Copy a run's model to a single file that can be shared.

    Parameters
    ----------
    run : Path
        Run folder or model file; for a run that has not finished, its best
        checkpoint is exported.
    target : Path
        The file to write, ``.safetensors``.
    overwrite : bool
        Whether a file that is there may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the target has another ending, or is the model itself.
    AffmaeError
        If the target exists, or cannot be written.
    CheckpointError
        If the run has no model yet.
    """
    if target.suffix != MODEL_SUFFIX:
        raise ValueError(f"a model file ends in {MODEL_SUFFIX}, got {target.name!r}")
    read_metadata(run)
    source = model_path(run)
    if target.exists():
        if target.samefile(source):
            raise ValueError(f"{target} is the model that is to be exported; choose another file")
        if not overwrite:
            raise AffmaeError(f"{target} already exists; choose another file, or overwrite it")
    replace_bytes(target, source.read_bytes())
    return target


def _check_ours(run: Path) -> None:
    if is_model_file(run):
        read_metadata(run)
    elif run.is_symlink() or not is_run(run):
        raise AffmaeError(f"{run} is neither the folder of a run nor a model file")


def _check_unused(run: Path) -> None:
    """Check that neither another process nor this one is writing to a run."""
    if run.is_file():
        return
    try:
        # Released at once: Windows neither renames nor deletes a file that is open.
        FileLock(run / LOCK_FILE).acquire(timeout=0).lock.release()
    except Timeout as error:
        raise AffmaeError(f"the run {run} is being written to; stop it first") from error


def _contents(run: Path) -> tuple[list[Path], list[Path], list[str]]:
    """Known files, folders from the innermost to the run, and names of other files."""
    files, folders, foreign = [], [], []
    for place, inside, names in os.walk(run, topdown=False):
        folder = Path(place)
        folders.append(folder)
        links = [name for name in inside if (folder / name).is_symlink()]
        for file in (folder / name for name in [*names, *links]):
            inner = file.relative_to(run).as_posix()
            if _KNOWN.fullmatch(inner):
                files.append(file)
            else:
                foreign.append(inner)
    return files, folders, sorted(foreign)


@contextmanager
def _file_errors(run: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AffmaeError(
            f"{run} cannot be {what}: {error.strerror} ({error.filename}). "
            "Close programs that have it open, and check that you may write there"
        ) from error
