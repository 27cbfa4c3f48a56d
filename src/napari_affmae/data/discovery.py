"""Images in folders, and images with their labels."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from napari_affmae.config import RUN_FILE
from napari_affmae.data.formats.file_index import FileIndex
from napari_affmae.data.formats.handles import POOL
from napari_affmae.data.formats.image_folders import is_image_folder
from napari_affmae.data.formats.kinds import reader_of, stem_of
from napari_affmae.data.formats.opening import open_source
from napari_affmae.data.formats.paths import mode_of, shown, url_of
from napari_affmae.data.formats.recipe import default_name, split_inner
from napari_affmae.data.labels import naming_pair
from napari_affmae.data.looking import Looking, Ticks, followed
from napari_affmae.data.sources.failures import failure
from napari_affmae.data.sources.layout import CHANNEL_AXES
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.data.threads import map_in_order
from napari_affmae.errors import DataError, UnreadableFileError

Paths = str | Path | Iterable[str | Path]

_IMAGES = "images"
_LABELS = "labels"
_PREVIEWS = "previews"


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was left out, and why.

    Attributes
    ----------
    path : Path
        The file or folder.
    reason : str
        Why, for the user.
    unreadable : bool
        Whether it was left out only because it could not be read.
    """

    path: Path
    reason: str
    unreadable: bool = False


@dataclass(frozen=True)
class Found:
    """Result of `find_sources`, in the order of the paths."""

    sources: list[ImageSource]
    skipped: list[Skipped]


def find_sources(
    paths: Paths,
    *,
    axes: str | None = None,
    channels: int | Sequence[int] | None = None,
    labels: bool = False,
) -> Found:
    """Open all images among files and folders.

    Folders are walked with all their subfolders, in the order of names; a zarr
    folder is one image, and so are the files of one stack. Left out, with the
    reason, are the labels in a folder that holds ``images`` and ``labels``, the
    pictures of runs, folders that are met again through links, and files that
    cannot be read. Files of other kinds do not count.

    What was found out about files is kept in the user's cache. As long as a file is
    not changed, it is opened again only when it is read.

    Parameters
    ----------
    paths : str, Path, or several of them
        Files and folders.
    axes, channels, labels
        See `open_source`; they apply to every file.

    Raises
    ------
    UnreadableFileError
        If one of `paths` does not exist.
    ValueError, TypeError
        If `axes` or `channels` do not fit a file.
    """
    return followed(look_for_sources(paths, axes=axes, channels=channels, labels=labels))


def look_for_sources(
    paths: Paths,
    *,
    axes: str | None = None,
    channels: int | Sequence[int] | None = None,
    labels: bool = False,
) -> Looking[Found]:
    """Do as `find_sources`, and tell how far it is; closing the generator ends the search.

    Yields
    ------
    int
        How many files were looked at, now and then.

    Returns
    -------
    Found
    """
    found = Found([], [])
    in_stacks: set[Path] = set()
    ticks = Ticks()
    with FileIndex() as index:
        opened = partial(_opened, axes=axes, channels=channels, labels=labels, index=index)
        for path, item in map_in_order(opened, _candidates(paths, in_stacks)):
            yield from ticks.count()
            if _is_in(path, in_stacks):  # opened before its stack was known
                continue
            if isinstance(item, Skipped):
                found.skipped.append(item)
            else:
                found.sources.append(item)
                in_stacks |= _files_of_stack(item)
    return found


def _candidates(paths: Paths, in_stacks: set[Path]) -> Iterator[tuple[Path, str] | Skipped]:
    for root in _as_list(paths):
        _check_there(root)
        for item in _images_below(Path(root)):
            if isinstance(item, Skipped) or not _is_in(item[0], in_stacks):
                yield item


def _check_there(root: str | Path) -> None:
    """Raise where nothing is; what is on the web is only asked for when it is opened."""
    if url_of(root) is None:
        mode_of(split_inner(str(root))[0])


def _opened(
    item: tuple[Path, str] | Skipped,
    *,
    axes: str | None,
    channels: int | Sequence[int] | None,
    labels: bool,
    index: FileIndex,
) -> tuple[Path, ImageSource | Skipped]:
    if isinstance(item, Skipped):
        return item.path, item
    path, name = item
    try:
        source = open_source(
            path, axes=axes, channels=channels, name=name, labels=labels, index=index
        )
    except UnreadableFileError as error:
        return path, Skipped(path, str(error), unreadable=True)
    return path, source


def _is_in(path: Path, files: set[Path]) -> bool:
    return bool(files) and path.resolve() in files


def _files_of_stack(source: ImageSource) -> set[Path]:
    """Files of a source that is spread over several; each of them opens the whole."""
    return {file.resolve() for file in source.files} if len(source.files) > 1 else set()


def find_pairs(
    images: Paths,
    labels: Paths | None = None,
    *,
    axes: str | None = None,
    label_axes: str | None = None,
    channels: int | Sequence[int] | None = None,
) -> list[tuple[ImageSource, ImageSource]]:
    """Open images and the label images of the same names.

    Parameters
    ----------
    images : str, Path, or several of them
        Image files or folders. Names are compared without their suffix, and
        relative to the folder. A single image and a single label image are a
        pair whatever their names.
    labels : str, Path, or several of them, optional
        Label files or folders. Without it, `images` is a folder that holds the
        folders ``images`` and ``labels``.
    axes, channels
        See `open_source`; they apply to the images.
    label_axes : str, optional
        Axes of the label images; `axes` without its channels by default.

    Returns
    -------
    list of (ImageSource, ImageSource)
        Image and labels, in the order of names.

    Raises
    ------
    DataError
        If a file has no partner, two have the same name, or nothing is found.
    UnreadablePairError
        If a file cannot be read.
    """
    looking = look_for_pairs(images, labels, axes=axes, label_axes=label_axes, channels=channels)
    return followed(looking)


def look_for_pairs(
    images: Paths,
    labels: Paths | None = None,
    *,
    axes: str | None = None,
    label_axes: str | None = None,
    channels: int | Sequence[int] | None = None,
) -> Looking[list[tuple[ImageSource, ImageSource]]]:
    """Do as `find_pairs`, and tell how far it is; closing the generator ends the search.

    Yields
    ------
    int
        How many pairs were looked at, now and then.

    Returns
    -------
    list of (ImageSource, ImageSource)
    """
    if labels is None:
        if not isinstance(images, str | Path):
            raise ValueError("labels may be left out for one folder with images/ and labels/ only")
        root = Path(images)
        images, labels = root / _IMAGES, root / _LABELS
    if label_axes is None and axes is not None:
        label_axes = "".join(axis for axis in axes if axis.upper() not in CHANNEL_AXES)
    image_paths = _by_name(images, "image")
    label_paths = _by_name(labels, "label image")
    if len(image_paths) == len(label_paths) == 1:
        label_paths = dict.fromkeys(image_paths, *label_paths.values())
    _complain_about_singles(image_paths, label_paths)
    pairs: list[tuple[ImageSource, ImageSource]] = []
    in_stacks: set[Path] = set()
    index, ticks = FileIndex(), Ticks()

    def opened(name: str) -> tuple[ImageSource, ImageSource]:
        image_path, label_path = image_paths[name], label_paths[name]
        with naming_pair(image_path, label_path):
            image = open_source(image_path, axes=axes, channels=channels, name=name, index=index)
            # Writers leave out what is all background.
            label = open_source(
                label_path,
                axes=label_axes,
                name=f"labels {name}",
                sparse=True,
                labels=True,
                index=index,
            )
        return image, label

    names = (name for name, path in image_paths.items() if not _is_in(path, in_stacks))
    with index:
        for image, label in map_in_order(opened, names):
            yield from ticks.count()
            if not _is_in(image_paths[image.name], in_stacks):  # opened before its stack was known
                pairs.append((image, label))
                in_stacks |= _files_of_stack(image)
    return pairs


def _complain_about_singles(images: dict[str, Path], labels: dict[str, Path]) -> None:
    for mine, theirs, what, missing in (
        (images, labels, "images", "labels"),
        (labels, images, "label images", "images"),
    ):
        single = [str(path) for name, path in mine.items() if name not in theirs]
        if single:
            raise DataError(
                f"{len(single)} {what} without {missing} of the same name: "
                f"{', '.join(single[:5])}{' ...' if len(single) > 5 else ''}; "
                "rename them, or leave them out"
            )


def _by_name(paths: Paths, what: str) -> dict[str, Path]:
    """Files by their name without suffix, relative to the folder that was given."""
    files: dict[str, Path] = {}
    for root in _as_list(paths):
        try:
            _check_there(root)
        except UnreadableFileError as error:
            raise DataError(str(error)) from error
        for item in _images_below(Path(root)):
            if isinstance(item, Skipped):
                if item.unreadable:
                    raise DataError(item.reason)
                continue
            path, name = item
            stem = _stem(name)
            if stem in files:
                raise DataError(f"two {what}s have the same name: {files[stem]} and {path}")
            files[stem] = path
    if not files:
        raise DataError(f"no {what} found in {', '.join(map(shown, _as_list(paths)))}")
    return files


def _stem(name: str) -> str:
    path, _ = split_inner(name)
    stem = stem_of(path).removesuffix(".ome")
    return (path.parent / stem).as_posix()


def _as_list(paths: Paths) -> list[str | Path]:
    return [paths] if isinstance(paths, str | Path) else list(paths)


def _images_below(root: Path) -> Iterator[tuple[Path, str] | Skipped]:
    """Paths of images with their names relative to `root`, in the order of names."""
    if not root.is_dir() or is_image_folder(root):
        yield root, default_name(root)
        return
    for item in _walk(_listing(root), {root.resolve()}):
        yield item if isinstance(item, Skipped) else (item, item.relative_to(root).as_posix())


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, in the order of names."""

    def listed() -> list[os.DirEntry[str]]:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)

    try:
        return POOL.with_room(listed)
    except OSError as error:
        raise failure(error, f"cannot read the folder {folder}") from error


def _walk(entries: list[os.DirEntry[str]], walked: set[Path]) -> Iterator[Path | Skipped]:
    names = {entry.name for entry in entries}
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        try:
            if not entry.is_dir():
                if reader_of(path):
                    yield path
            elif is_image_folder(path):
                yield path
            elif reason := _why_not(path, names, walked):
                yield Skipped(path, reason)
            else:
                below = _listing(path)
                walked.add(path.resolve())
                yield from _walk(below, walked)
        except UnreadableFileError as error:
            yield Skipped(path, str(error), unreadable=True)
        except OSError as error:
            yield Skipped(path, str(failure(error, f"cannot read {path}")), unreadable=True)


def _why_not(folder: Path, beside: set[str], walked: set[Path]) -> str | None:
    """Return why the images in a folder are left out; None if they are used."""
    if folder.name == _LABELS and _IMAGES in beside:
        return "labels of the images beside it"
    if (folder / RUN_FILE).is_file() or (folder.name == _PREVIEWS and RUN_FILE in beside):
        return "the folder of a run; to use its pictures, choose that folder itself"
    if folder.resolve() in walked:
        return "a link to a folder that is read already"
    return None
