"""What names of files and folders say of their role: images, or labels of images."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Role = Literal["image", "labels"]
Tokens = tuple[str, ...]

_LABEL_WORDS = {
    *("label", "labels", "lbl", "mask", "masks", "gt", "groundtruth", "truth"),
    *("annotation", "annotations", "annotated", "annot"),
    *("seg", "segs", "segmentation", "segmentations", "segmented"),
    *("pred", "preds", "prediction", "predictions", "probability", "probabilities"),
}
# Words that programs put beside those, as Cellpose (cp_masks) and ilastik (Object Identities) do.
_BESIDE_LABELS = {
    *("cp", "ground", "simple", "object", "objects", "identities"),
    *("instance", "instances", "semantic", "binary", "manual"),
}
_IMAGE_WORDS = {"image", "images", "img", "imgs", "im", "raw", "em", "input", "inputs"}
# Parts of data sets: imagesTr, train_masks, labels3D.
_PARTS = {"tr", "ts", "train", "training", "test", "testing", "val", "validation", "d"}
# The first channel, as nnU-Net numbers them behind the names of images.
_CHANNEL = "0000"

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")


def tokens(name: str) -> Tokens:
    """Split a name into words and numbers, in lower case: ``S01_CpMasks`` is s, 01, cp, masks."""
    return tuple(_TOKEN.findall(_CAMEL.sub(" ", name).lower()))


def are_known(words: Iterable[str]) -> bool:
    """Whether words only tell a role, and nothing by which images are told apart."""
    known = _LABEL_WORDS | _BESIDE_LABELS | _IMAGE_WORDS | _PARTS | {_CHANNEL}
    return all(word in known for word in words)


def folder_role(name: str) -> Role | None:
    """Return what a folder's name says; None if it also says something else, or nothing.

    Parameters
    ----------
    name : str
        Its last part, such as ``labelsTr``, ``Ground truth`` or ``train_images``.
    """
    words = [word for word in tokens(name) if word not in _PARTS and not word.isdigit()]
    if not words:
        return None
    if all(word in _IMAGE_WORDS for word in words):
        return "image"
    if all(word in _LABEL_WORDS | _BESIDE_LABELS for word in words) and _LABEL_WORDS & {*words}:
        return "labels"
    return None


@dataclass(frozen=True)
class NamedRole:
    """What the name of a file says, with the folders above it.

    Attributes
    ----------
    role : "labels" or None
        None if it may be an image.
    key : tuple of tuple of str
        Words of folders and of the file without those that tell roles; equal for
        an image and its labels.
    """

    role: Role | None
    key: tuple[Tokens, ...]

    @classmethod
    def of(cls, name: str) -> "NamedRole":
        """Look at a name relative to the folder that was given, without its suffix."""
        path = PurePosixPath(name)
        parts = [part for part in path.parts[:-1] if folder_role(part) is None]
        in_labels = any(folder_role(part) == "labels" for part in path.parts[:-1])
        words = tokens(path.name)
        is_labels = in_labels or not _LABEL_WORDS.isdisjoint(words)
        dropped = _IMAGE_WORDS | (_LABEL_WORDS | _BESIDE_LABELS if is_labels else set())
        kept = tuple(word for word in words if word not in dropped)
        return cls("labels" if is_labels else None, (*map(tokens, parts), kept))

    def keys(self) -> Iterator[tuple[Tokens, ...]]:
        """Yield the keys by which this may be found: also without nnU-Net's channel number."""
        yield self.key
        *folders, words = self.key
        if words[-1:] == (_CHANNEL,):
            yield (*folders, words[:-1])

    def wanted(self) -> Iterator[tuple[Tokens, ...]]:
        """Yield the keys that an image of these labels may have.

        Labels may also say what they show: ``s01_mito_mask`` belongs to ``s01``.
        """
        *folders, words = self.key
        yield self.key
        for number in range(1, len(words)):
            if all(word.isalpha() for word in words[-number:]):
                yield (*folders, words[:-number])
            if all(word.isalpha() for word in words[:number]):
                yield (*folders, words[number:])
