"""Images in folders, and images with their labels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from napari_affmae.data.formats.files.paths import shown
from napari_affmae.data.formats.opening.file_index import FileIndex
from napari_affmae.data.formats.opening.source import open_source
from napari_affmae.data.labels import naming_pair
from napari_affmae.data.left_out import OtherFiles, Skipped, told
from napari_affmae.data.looking import Looking, Ticks, followed
from napari_affmae.data.not_images import stem, without_labels
from napari_affmae.data.pairing import check_order, match, tell_apart
from napari_affmae.data.sources.layout import CHANNEL_AXES
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.data.threads import map_in_order
from napari_affmae.data.walking import Paths, as_list, check_there, folders_among, images_below
from napari_affmae.errors import DataError, UnreadableFileError

_IMAGES = "images"
_LABELS = "labels"


@dataclass(frozen=True)
class Found:
    """Result of `find_sources`.

    Attributes
    ----------
    sources : list of ImageSource
        In the order of the paths.
    skipped : list of Skipped
        What was left out.
    others : OtherFiles
        Files of kinds that are not read.
    """

    sources: list[ImageSource]
    skipped: list[Skipped]
    others: OtherFiles


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
    reason, are labels and results of this program beside images (see
    `not_images`), the pictures of runs, folders that are met again through links,
    and files that cannot be read. Files of other kinds are counted.

    What was found out about files is kept in the user's cache. As long as a file is
    not changed, it is opened again only when it is read.

    Parameters
    ----------
    paths : str, Path, or several of them
        Files and folders; ``FOLDER:/NAME`` is the array of this name in each HDF5
        file and zarr folder below a folder. Labels that are given themselves, or
        in a folder without images, are read.
    axes, channels
        See `open_source`; they apply to every file.
    labels : bool
        Whether label images are looked for: their values are read as classes, and
        none is left out for being labels.

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
    found = Found([], [], OtherFiles())
    in_stacks: set[Path] = set()
    ticks = Ticks()
    with FileIndex() as index:
        opened = partial(_opened, axes=axes, channels=channels, labels=labels, index=index)
        candidates = _candidates(paths, in_stacks, found.others, labels)
        for path, item in map_in_order(opened, candidates):
            yield from ticks.count()
            if _is_in(path, in_stacks):  # opened before its stack was known
                continue
            if isinstance(item, Skipped):
                found.skipped.append(item)
            else:
                found.sources.append(item)
                in_stacks |= _files_of_stack(item)
    if labels:
        return found
    kept, left_out = without_labels(found.sources, folders_among(paths))
    return Found(kept, found.skipped + left_out, found.others)


def _candidates(
    paths: Paths, in_stacks: set[Path], others: OtherFiles, labels: bool
) -> Iterator[tuple[Path, str] | Skipped]:
    for root in as_list(paths):
        check_there(root)
        for item in images_below(Path(root), others, labels):
            if isinstance(item, Skipped) or not _is_in(item[0], in_stacks):
                yield item


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
    tell: Callable[[str], None] = lambda _: None,
) -> list[tuple[ImageSource, ImageSource]]:
    """Open images and the label images of the same names.

    Parameters
    ----------
    images : str, Path, or several of them
        Image files or folders. Names are compared without their suffix, and
        relative to the folder. They may differ by one beginning and one ending,
        such as ``_mask``, if all do. A single image and a single label image are a
        pair whatever their names.
    labels : str, Path, or several of them, optional
        Label files or folders. Without it, `images` is a folder that holds the
        folders ``images`` and ``labels``. ``FOLDER:/raw`` and ``FOLDER:/label`` are
        arrays in the same HDF5 files or zarr folders.
    axes, channels
        See `open_source`; they apply to the images.
    label_axes : str, optional
        Axes of the label images. By default those of `axes`, without the channels
        where labels have fewer axes.
    tell : callable, optional
        Is called with a sentence about each kind of files that is left out, and
        about names that differ.

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
    return followed(
        look_for_pairs(
            images, labels, axes=axes, label_axes=label_axes, channels=channels, tell=tell
        )
    )


def look_for_pairs(
    images: Paths,
    labels: Paths | None = None,
    *,
    axes: str | None = None,
    label_axes: str | None = None,
    channels: int | Sequence[int] | None = None,
    tell: Callable[[str], None] = lambda _: None,
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
    check_order(as_list(images), as_list(labels))
    named, note = match(
        *tell_apart(
            _by_name(images, "image", tell, labels=False),
            _by_name(labels, "label image", tell, labels=True),
        )
    )
    if note is not None:
        tell(note)
    pairs: list[tuple[ImageSource, ImageSource]] = []
    in_stacks: set[Path] = set()
    index, ticks = FileIndex(), Ticks()

    def opened(name: str) -> tuple[ImageSource, ImageSource]:
        image_path, label_path = named[name]
        with naming_pair(image_path, label_path):
            image = open_source(image_path, axes=axes, channels=channels, name=name, index=index)
            label = _open_labels(label_path, f"labels {name}", label_axes, axes, index)
        return image, label

    names = (name for name, (path, _) in named.items() if not _is_in(path, in_stacks))
    with index:
        for image, label in map_in_order(opened, names):
            yield from ticks.count()
            if not _is_in(named[image.name][0], in_stacks):  # opened before its stack was known
                pairs.append((image, label))
                in_stacks |= _files_of_stack(image)
    return pairs


def _open_labels(
    path: Path, name: str, label_axes: str | None, image_axes: str | None, index: FileIndex
) -> ImageSource:
    if label_axes is None and image_axes is not None:
        label_axes = "".join(axis for axis in image_axes if axis.upper() not in CHANNEL_AXES)
        if len(label_axes) < len(image_axes):
            labels = open_source(path, name=name, labels=True, index=index)
            if len(labels.layout.shape) == len(image_axes):
                label_axes = image_axes
    return open_source(path, axes=label_axes, name=name, labels=True, index=index)


def _by_name(
    paths: Paths, what: str, tell: Callable[[str], None], *, labels: bool
) -> dict[str, Path]:
    """Files by their name without suffix, relative to the folder that was given."""
    files: dict[str, Path] = {}
    skipped: list[Skipped] = []
    others = OtherFiles()
    for root in as_list(paths):
        try:
            check_there(root)
        except UnreadableFileError as error:
            raise DataError(str(error)) from error
        for item in images_below(Path(root), others, labels):
            if isinstance(item, Skipped):
                skipped.append(item)
                continue
            path, name = item
            if stem(name) in files:
                raise DataError(f"two {what}s have the same name: {files[stem(name)]} and {path}")
            files[stem(name)] = path
    for line in told(skipped):
        tell(f"left out: {line}")
    if not files:
        there = f"; there are: {others}" if others.counts else ""
        raise DataError(f"no {what} found in {', '.join(map(shown, as_list(paths)))}{there}")
    return files
