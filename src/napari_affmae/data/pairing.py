"""Which labels belong to which image, by the names of their files."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from napari_affmae.data.formats.files.paths import shown
from napari_affmae.data.formats.opening.recipe import split_inner
from napari_affmae.data.roles import NamedRole, are_known, folder_role, tokens
from napari_affmae.errors import DataError

Files = Mapping[str, Path]
"""Paths by their names without suffix, relative to the folder that was given."""

_SEPARATORS = "_-. "
_NAMED = 5


def check_order(images: Sequence[str | Path], labels: Sequence[str | Path]) -> None:
    """Refuse folders whose names say that they were given in the wrong order.

    Raises
    ------
    DataError
        If the images are in a folder named as labels are, and the other way round.
    """
    roles = [
        {folder_role(split_inner(str(path))[0].name) for path in paths}
        for paths in (images, labels)
    ]
    if roles == [{"labels"}, {"image"}]:
        raise DataError(
            f"images and labels look swapped: {images[0]} would be the images and {labels[0]} "
            "the labels; give the images first, then the labels"
        )


def tell_apart(images: Files, labels: Files) -> tuple[Files, Files]:
    """Take the labels out of the images, where both lie in one folder.

    Raises
    ------
    DataError
        If the images are the labels too.
    """
    theirs = set(labels.values())
    if theirs.isdisjoint(images.values()):
        return images, labels
    if theirs == set(images.values()):  # one folder for both
        labels = {name: path for name, path in labels.items() if NamedRole.of(name).role}
    own = {name: path for name, path in images.items() if path not in labels.values()}
    if not own or not labels:
        path = next(iter(images.values()))
        raise DataError(
            f"images and labels are the same files, such as {shown(path)}: give the images first, "
            "then their labels. Where each HDF5 or zarr file holds both, name the arrays, as in "
            "folder:/raw and folder:/label"
        )
    return own, labels


def match(images: Files, labels: Files) -> tuple[dict[str, tuple[Path, Path]], str | None]:
    """Find the labels of each image.

    Those of the same name belong together. Else one beginning and one ending must
    tell all labels from their images, such as ``s01_0000`` and ``s01_mask``. A single
    image and a single label image are a pair whatever their names.

    Parameters
    ----------
    images, labels : mapping of str to Path
        Files by their names.

    Returns
    -------
    pairs : dict
        Image and labels by the name of the image.
    note : str or None
        How names were matched, where they differ.

    Raises
    ------
    DataError
        If a file has no partner.
    """
    partners, note = _partners(images, labels)
    pairs = {name: (path, labels[partners[name]]) for name, path in images.items()}
    for image, label in pairs.values():
        if os.path.realpath(image) == os.path.realpath(label):
            raise DataError(
                f"{shown(image)} is given as an image and as its labels; give its labels"
            )
    return pairs, note


def _partners(images: Files, labels: Files) -> tuple[Mapping[str, str], str | None]:
    """Return the name of the labels of each image."""
    if len(images) == len(labels) == 1:
        return dict(zip(images, labels, strict=True)), None
    if images.keys() == labels.keys():
        return {name: name for name in images}, None
    partners = _by_affixes(images, labels)
    if partners is None:
        raise _singles(images, labels)
    image, label = next(iter(partners.items()))
    return partners, f"names differ: {label} is taken for the labels of {image}, and so on"


def _by_affixes(images: Iterable[str], labels: Iterable[str]) -> dict[str, str] | None:
    """Match names that differ by one beginning and one ending; None if they do not."""
    (before, after, mine), (also_before, also_after, theirs) = map(_cores, (images, labels))
    if mine is None or theirs is None or mine.keys() != theirs.keys():
        return None
    shared = len(_beginning([before[::-1], also_before[::-1]]))
    prefixes = [text[: len(text) - shared] for text in (before, also_before)]
    shared = len(_beginning([after, also_after]))
    suffixes = [text[shared:] for text in (after, also_after)]
    separated = prefixes[0][-1:] + prefixes[1][-1:], suffixes[0][:1] + suffixes[1][:1]
    affixes = (prefixes, suffixes)
    if not all(map(_is_certain, affixes, separated)):
        return None
    return {name: theirs[core] for core, name in mine.items()}


def _cores(names: Iterable[str]) -> tuple[str, str, dict[tuple[str, str], str] | None]:
    """Strip the beginning and ending that all names share; None if two are then alike."""
    paths = {name: PurePosixPath(name) for name in names}
    before = _beginning([path.name for path in paths.values()])
    rests = {name: path.name[len(before) :] for name, path in paths.items()}
    after = _beginning([rest[::-1] for rest in rests.values()])[::-1]
    cores = {
        (_folder(paths[name]), rest[: len(rest) - len(after)]): name for name, rest in rests.items()
    }
    return before, after, cores if len(cores) == len(paths) else None


def _beginning(texts: Collection[str]) -> str:
    """Return the longest beginning that all texts share."""
    first, last = min(texts), max(texts)  # all others lie between these
    differing = (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differing, len(first))]


def _folder(path: PurePosixPath) -> str:
    """Return the folders above a file, without those that tell images from labels."""
    return "/".join(part for part in path.parent.parts if folder_role(part) is None)


def _is_certain(texts: Sequence[str], boundary: str) -> bool:
    """Whether two beginnings or endings tell labels from images, and nothing else."""
    if "" in texts:
        return not any(texts) or boundary in _SEPARATORS or are_known(tokens("".join(texts)))
    return all(are_known(tokens(text)) for text in texts)


def _singles(images: Files, labels: Files) -> DataError:
    """Name the files without a partner."""
    mine, theirs, what, missing = images, labels, "images", "labels"
    if images.keys() <= labels.keys():
        mine, theirs, what, missing = labels, images, "label images", "images"
    single = [str(path) for name, path in mine.items() if name not in theirs]
    return DataError(
        f"{len(single)} {what} without {missing} of the same name: {_some(single)}; the {missing} "
        f"there: {_some([str(path) for path in theirs.values()], 2)}. Rename them, or leave them "
        "out. All names may also differ by one ending or beginning, as a.tif and a_mask.tif do"
    )


def _some(names: Collection[str], most: int = _NAMED) -> str:
    return f"{', '.join(list(names)[:most])}{' ...' if len(names) > most else ''}"
