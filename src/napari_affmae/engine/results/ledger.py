"""Which blocks of a result are complete: a byte a block, in a file of its own."""

from collections.abc import Iterator
from pathlib import Path

from napari_affmae.errors import UnreadableFileError
from napari_affmae.files import write_bytes, write_errors

_DONE = b"\x01"


class Ledger:
    """Marks of complete blocks, bound to the plan that they belong to.

    A block is marked after it is on the disk. A mark that is lost costs the time to
    compute the block again; nothing else tells that a block is complete.

    Parameters
    ----------
    path : Path
        The file: the plan's fingerprint, and behind it a byte a block.
    fingerprint : bytes
        Of the plan.
    count : int
        Number of blocks.

    Raises
    ------
    UnreadableFileError
        If the file is damaged or belongs to another plan.
    """

    def __init__(self, path: Path, fingerprint: bytes, count: int) -> None:
        self._path = path
        self._fingerprint, self._count = fingerprint, count
        self._start = len(fingerprint)
        self.reload()

    def reload(self) -> None:
        """Read the marks again, which others may have set.

        Raises
        ------
        UnreadableFileError
            If the file is damaged or belongs to another plan.
        """
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise UnreadableFileError(
                f"cannot read {self._path}, which says what is done: {error}"
            ) from error
        if content[: self._start] != self._fingerprint or len(content) != self._start + self._count:
            raise UnreadableFileError(f"{self._path} does not belong to the result that it lies in")
        self._marks = bytearray(content[self._start :])

    @staticmethod
    def create(path: Path, fingerprint: bytes, count: int) -> None:
        """Write the file of a result of which nothing is done."""
        write_bytes(path, fingerprint, bytes(count))

    def mark(self, number: int) -> None:
        """Note that a block is complete.

        Raises
        ------
        UnwritableError
            If the file cannot be written.
        """
        with write_errors(self._path), self._path.open("r+b") as file:
            file.seek(self._start + number)
            file.write(_DONE)
        self._marks[number] = 1

    def has(self, number: int) -> bool:
        """Whether a block is complete."""
        return bool(self._marks[number])

    def count(self, numbers: range) -> int:
        """Count the complete blocks among some that follow each other."""
        return sum(self._marks[numbers.start : numbers.stop])

    def missing(self, numbers: range) -> Iterator[int]:
        """Return the blocks that are not complete, among some."""
        return (number for number in numbers if not self._marks[number])

    @property
    def done(self) -> int:
        """Number of complete blocks."""
        return sum(self._marks)

    @property
    def is_complete(self) -> bool:
        """Whether all blocks are complete."""
        return all(self._marks)
