"""Tells images from labels and results that lie among them.

Names decide where they are certain: labels bear a name that says so, and there is an
image of the same name without it. Elsewhere pixels decide, where two folders hold files
of the same names and shapes. What is neither stays, and `check_sources` warns of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from napari_affmae.data.flatness import looks_like_labels
from napari_affmae.data.formats.opening.kinds import stem_of
from napari_affmae.data.formats.opening.recipe import split_inner
from napari_affmae.data.left_out import Skipped
from napari_affmae.data.roles import NamedRole, Tokens
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.data.threads import map_in_order
from napari_affmae.errors import SystemLimitError, UnreadableFileError

RESULT = "a result of this program; to read it as an image, give it alone"
LABELS = "labels, by its own metadata; to read it as an image, give it alone"
NAMED_LABELS = (
    "labels of an image beside it, by its name; to read it as an image, give it or its folder alone"
)
FLAT_LABELS = (
    "labels of the images of the same names in another folder, as it holds areas of whole "
    "numbers; to read it as an image, give its folder alone"
)
_BY_CONTENT = {"result": RESULT, "labels": LABELS}

_SIDE = 512
_LOOKED_AT = 2


def stem(name: str) -> str:
    """Return the name of a file without its suffix and the array inside, with its folders."""
    path, _ = split_inner(name)
    return (path.parent / stem_of(path).removesuffix(".ome")).as_posix()


def without_labels(
    sources: Sequence[ImageSource], folders: Iterable[Path]
) -> tuple[list[ImageSource], list[Skipped]]:
    """Leave out the labels and results among images.

    Parameters
    ----------
    sources : sequence of ImageSource
        Of files.
    folders : iterable of Path
        The folders that were given. Files that lie in none of them were given
        themselves, and stay. So does everything in a folder that holds no image.

    Returns
    -------
    kept : list of ImageSource
        In the same order.
    skipped : list of Skipped
        The others.

    Raises
    ------
    SystemLimitError
        If memory or open files run out.
    """
    reasons: dict[ImageSource, str] = {}
    for root, members in _by_folder(sources, folders).items():
        found = [source for source in members if source.content == "image"]
        if not found:
            continue
        reasons |= {s: _BY_CONTENT[s.content] for s in members if s.content != "image"}
        named = dict.fromkeys(_named_labels(found, root), NAMED_LABELS)
        rest = [source for source in found if source not in named]
        reasons |= named | dict.fromkeys(_flat_labels(rest, root), FLAT_LABELS)
    kept = [source for source in sources if source not in reasons]
    return kept, [Skipped(_path(source), reason) for source, reason in reasons.items()]


def _by_folder(
    sources: Sequence[ImageSource], folders: Iterable[Path]
) -> Mapping[Path, list[ImageSource]]:
    """Sort sources by the innermost of the folders that they lie in; drop those in none."""
    innermost = sorted(folders, key=lambda folder: len(folder.parts), reverse=True)
    members: dict[Path, list[ImageSource]] = defaultdict(list)
    for source in sources:
        root = next((r for r in innermost if _path(source).is_relative_to(r)), None)
        if root is not None and root != _path(source):
            members[root].append(source)
    return members


def _path(source: ImageSource) -> Path:
    if source.path is None:
        raise ValueError(f"{source.name} is no file")
    return source.path


def _relative(source: ImageSource, root: Path) -> str:
    return stem(_path(source).relative_to(root).as_posix())


def _named_labels(sources: Sequence[ImageSource], root: Path) -> Iterator[ImageSource]:
    """Yield those that are labels by their name, and whose image is there."""
    roles = {source: NamedRole.of(_relative(source, root)) for source in sources}
    labels = {source: role for source, role in roles.items() if role.role == "labels"}
    if not labels:
        return
    images: set[tuple[Tokens, ...]] = set()
    for source, role in roles.items():
        if source not in labels:
            images.update(role.keys())
    yield from (s for s, role in labels.items() if not images.isdisjoint(role.wanted()))


@dataclass(frozen=True)
class _Kin:
    """Files of one folder and one suffix."""

    folder: PurePath
    suffix: str


def _flat_labels(sources: Sequence[ImageSource], root: Path) -> Iterator[ImageSource]:
    """Yield those in folders of labels, whose images of the same names are in other folders.

    Names say nothing here. Few files of each folder are looked at, and only where
    another folder holds files of the same names and shapes.
    """
    alike: dict[tuple[str, int, int, int], list[tuple[_Kin, ImageSource]]] = defaultdict(list)
    for source in sources:
        path = PurePath(_relative(source, root))
        kin = _Kin(path.parent, _path(source).suffix.lower())
        shape = (source.n_planes, source.height, source.width)
        alike[path.name, *shape].append((kin, source))
    several = [group for group in alike.values() if len({kin for kin, _ in group}) > 1]
    examples: dict[_Kin, list[ImageSource]] = defaultdict(list)
    for kin, source in (item for group in several for item in group):
        if len(examples[kin]) < _LOOKED_AT:
            examples[kin].append(source)
    verdicts = map_in_order(lambda kin: all(map(_is_flat, examples[kin])), list(examples))
    flat = {kin for kin, is_flat in zip(examples, verdicts, strict=True) if is_flat}
    for group in several:
        if any(kin not in flat for kin, _ in group):
            yield from (source for kin, source in group if kin in flat)


def _is_flat(source: ImageSource) -> bool:
    """Whether the middle of an image looks like labels; False if it cannot be read."""
    rows, columns = (
        slice(max(0, (size - _SIDE) // 2), (size + _SIDE) // 2)
        for size in (source.height, source.width)
    )
    try:
        pixels = source.read(source.n_planes // 2, rows, columns)
    except SystemLimitError:
        raise
    except UnreadableFileError:  # told when the image is checked or read
        return False
    return len(pixels) == 1 and looks_like_labels(pixels[0])
