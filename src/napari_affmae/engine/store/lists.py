"""Lists with an entry an image, in files beside a run's record.

So the record stays small, which is read often. A list is written once and never
changed: one JSON value a line. The record holds its file, its length and its SHA-256.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from napari_affmae.errors import CheckpointError
from napari_affmae.files import parse_json, remove_leftovers, replace_bytes

#: Names of the files of lists.
LIST_NAME = r"run_(data|validation_planes)(_\d{1,6})?\.jsonl"

T = TypeVar("T")


class StoredList(BaseModel):
    """What a record says of a list beside it."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    file: Annotated[str, Field(pattern=f"^{LIST_NAME}$")]
    entries: int = Field(ge=0)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ListKind(Generic[T]):
    """A kind of list.

    Parameters
    ----------
    name : str
        What its entries are.
    entry : type
        What a line holds; by pydantic.

    Attributes
    ----------
    first : str
        Name of the file of the first list.
    """

    def __init__(self, name: str, entry: type[T]) -> None:
        self.first = f"run_{name}.jsonl"
        self._name = name
        self._entry = TypeAdapter(entry)

    def write(self, run: Path, items: Iterable[Any], number: int = 1) -> dict[str, Any]:
        """Write a list.

        Parameters
        ----------
        run : Path
            The run folder.
        items : iterable
            Plain data.
        number : int
            Which of the lists of this kind; the first is that of the run's start.

        Returns
        -------
        dict
            A `StoredList`, for the record.
        """
        lines = _lines(items)
        file = self.first if number == 1 else f"run_{self._name}_{number}.jsonl"
        remove_leftovers(run / file)
        replace_bytes(run / file, *lines)
        return {"file": file, "entries": len(lines), "sha256": _digest(lines)}

    def is_same(self, said: Any, items: Iterable[Any]) -> bool:
        """Whether a list is the one that a record tells of."""
        lines = _lines(items)
        if isinstance(said, list):
            return lines == _lines(said)
        return bool(_digest(lines) == said["sha256"])

    def read(self, run: Path, said: Any) -> list[Any]:
        """Read a list.

        Parameters
        ----------
        run : Path
            The run folder.
        said : list or dict
            What the checked record holds: a `StoredList`, or the list itself in runs of
            earlier versions.

        Raises
        ------
        CheckpointError
            If it is missing or damaged.
        """
        if isinstance(said, list):
            return said
        path = run / said["file"]
        try:
            content = path.read_bytes()
            if _digest([content]) != said["sha256"]:
                raise ValueError("it is not the one that the run has written")
            items = [parse_json(line) for line in content.splitlines()]
            for item in items:
                self._entry.validate_python(item, strict=True)
        except (OSError, ValueError) as error:
            told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise CheckpointError(
                f"cannot read {path}: {told}. Put a copy of it in its place, or start another run"
            ) from error
        return items


def _lines(items: Iterable[Any]) -> list[bytes]:
    return [json.dumps(item, allow_nan=False).encode() + b"\n" for item in items]


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
