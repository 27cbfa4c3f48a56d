"""What is found among images and left out, and how that is told."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from napari_affmae.data.formats.files.paths import shown
from napari_affmae.data.formats.opening.kinds import why_not_read


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


@dataclass
class OtherFiles:
    """Counts files that are of no kind that is read, with an example of each kind.

    Attributes
    ----------
    counts : Counter of str
        By ending of the name, or "hidden".
    examples : dict
        The name of one file of each kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, name: str) -> None:
        """Count a file by its name."""
        kind = "hidden" if name.startswith(".") else Path(name).suffix.lower() or "without ending"
        self.counts[kind] += 1
        self.examples.setdefault(kind, name)

    def __str__(self) -> str:
        """Say how many of which kinds: ``3 .txt (notes.txt), 1 hidden (.DS_Store)``.

        Of images of kinds that are not read, it also says what can be done.
        """
        return ", ".join(
            f"{count} {kind} ({self._example(kind)})" for kind, count in self.counts.most_common()
        )

    def _example(self, kind: str) -> str:
        name = self.examples[kind]
        reason = why_not_read(Path(name))
        return name if reason is None else f"{name} is {reason}"


def told(skipped: Iterable[Skipped]) -> Iterator[str]:
    """Say what was left out, in one line for all that were left out for the same reason.

    Parameters
    ----------
    skipped : iterable of Skipped
        In any order.

    Yields
    ------
    str
        Such as ``12 files, such as data/a_mask.tif: labels of an image beside it``.
    """
    alike: dict[str, list[Path]] = {}
    for item in skipped:
        alike.setdefault(item.reason, []).append(item.path)
    for reason, paths in alike.items():
        if len(paths) == 1 and str(paths[0]) in reason:  # of a file that cannot be read
            yield reason
            continue
        what = "folders" if paths[0].is_dir() else "files"
        many = f"{len(paths)} {what}, such as " if len(paths) > 1 else ""
        yield f"{many}{shown(paths[0])}: {reason}"
