"""Which files below a folder are images, and why the others are left out."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from napari_affmae.config import RUN_FILE
from napari_affmae.data.formats.files.handles import POOL
from napari_affmae.data.formats.files.image_folders import is_image_folder
from napari_affmae.data.formats.files.paths import mode_of, url_of
from napari_affmae.data.formats.opening.kinds import reader_of
from napari_affmae.data.formats.opening.recipe import default_name, holds_arrays, split_inner
from napari_affmae.data.left_out import OtherFiles, Skipped
from napari_affmae.data.roles import folder_role
from napari_affmae.data.sources.failures import failure
from napari_affmae.errors import UnreadableFileError

Paths = str | Path | Iterable[str | Path]

_PREVIEWS = "previews"


def as_list(paths: Paths) -> list[str | Path]:
    """Return paths as a list, also where there is one alone."""
    return [paths] if isinstance(paths, str | Path) else list(paths)


def check_there(root: str | Path) -> None:
    """Raise where nothing is; what is on the web is only asked for when it is opened.

    Raises
    ------
    UnreadableFileError
        If there is nothing.
    """
    if url_of(root) is None:
        mode_of(split_inner(str(root))[0])


def folders_among(paths: Paths) -> list[Path]:
    """Return those of the paths that are folders of images."""
    given = [split_inner(str(path))[0] for path in as_list(paths)]
    return [path for path in given if path.is_dir() and not is_image_folder(path)]


def images_below(
    root: Path, others: OtherFiles, labels: bool
) -> Iterator[tuple[Path, str] | Skipped]:
    """Find the images at a path or below it.

    Parameters
    ----------
    root : Path
        A file, an image folder, or a folder of images; perhaps with an array behind it.
    others : OtherFiles
        Takes the files of kinds that are not read.
    labels : bool
        Whether labels are looked for; else a folder of labels beside images is left out.

    Yields
    ------
    tuple of Path and str, or Skipped
        Each with its name relative to `root`, in the order of names; or what is left out.

    Raises
    ------
    UnreadableFileError
        If the folder itself cannot be read.
    """
    folder, inner = split_inner(str(root))
    if not folder.is_dir() or is_image_folder(folder):
        yield root, default_name(root)
        return
    for item in _walk(_listing(folder), {folder.resolve()}, others, labels):
        if isinstance(item, Skipped):
            yield item
        elif inner is None:
            yield item, item.relative_to(folder).as_posix()
        elif holds_arrays(item):
            yield Path(f"{item}:{inner}"), f"{item.relative_to(folder).as_posix()}:{inner}"
        else:
            others.note(item.name)


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, in the order of names."""

    def listed() -> list[os.DirEntry[str]]:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)

    try:
        return POOL.with_room(listed)
    except OSError as error:
        raise failure(error, f"cannot read the folder {folder}") from error


def _walk(
    entries: list[os.DirEntry[str]], walked: set[Path], others: OtherFiles, labels: bool
) -> Iterator[Path | Skipped]:
    names = {entry.name for entry in entries}
    for entry in entries:
        if entry.name.startswith("."):
            others.note(entry.name)
            continue
        path = Path(entry.path)
        try:
            if not entry.is_dir():
                if reader_of(path):
                    yield path
                else:
                    others.note(entry.name)
            elif is_image_folder(path):
                yield path
            elif reason := _why_not(path, names, walked, labels):
                yield Skipped(path, reason)
            else:
                below = _listing(path)
                walked.add(path.resolve())
                yield from _walk(below, walked, others, labels)
        except UnreadableFileError as error:
            yield Skipped(path, str(error), unreadable=True)
        except OSError as error:
            yield Skipped(path, str(failure(error, f"cannot read {path}")), unreadable=True)


def _why_not(folder: Path, beside: set[str], walked: set[Path], labels: bool) -> str | None:
    """Return why the images in a folder are left out; None if they are used."""
    if not labels and folder_role(folder.name) == "labels":
        images = sorted(name for name in beside if folder_role(name) == "image")
        if images:
            return (
                f"labels of the images in {images[0]} beside it, by its name; to read them as "
                "images, give this folder alone"
            )
    if (folder / RUN_FILE).is_file() or (folder.name == _PREVIEWS and RUN_FILE in beside):
        return "the folder of a run; to use its pictures, choose that folder itself"
    if folder.resolve() in walked:
        return "a link to a folder that is read already"
    return None
