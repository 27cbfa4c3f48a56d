"""Labelled sets, the planes of a label budget, and the images to pretrain on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from napari_affmae.config import LabelClass
from napari_affmae.data import (
    ImageSource,
    count_values,
    default_classes,
    find_pairs,
    find_sources,
    window,
)

Pair = tuple[ImageSource, ImageSource]
Budget = Literal["one", "quarter", "all"]
BUDGETS: tuple[Budget, ...] = ("one", "quarter", "all")

UNLABELLED = "pretrain"


@dataclass(frozen=True)
class Dataset:
    """A folder with ``train`` and ``val``, each with ``images`` and ``labels``.

    Attributes
    ----------
    name : str
        That of the folder.
    train, val : list of (ImageSource, ImageSource)
        Images and labels.
    classes : tuple of LabelClass
        All that the training labels have, whatever the budget.
    """

    name: str
    train: list[Pair]
    val: list[Pair]
    classes: tuple[LabelClass, ...]

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Find the pairs of a folder and the classes of its training labels."""
        train, val = (find_pairs(folder / part) for part in ("train", "val"))
        values = {value for _, labels in train for value in count_values(labels)}
        return cls(folder.resolve().name, train, val, default_classes(values))

    def take(self, budget: Budget) -> list[Pair]:
        """Choose the training planes of a budget, as windows of their images.

        Parameters
        ----------
        budget : {"one", "quarter", "all"}
            Share of the planes of all files together; see `spread_planes`.

        Returns
        -------
        list of (ImageSource, ImageSource)
            Only files of which planes were chosen. They are normalised as the
            whole files are.
        """
        counts = [image.n_planes for image, _ in self.train]
        return [
            (window(image, planes=planes), window(labels, planes=planes))
            for (image, labels), planes in zip(
                self.train, spread_planes(counts, budget), strict=True
            )
            if planes
        ]


def labelled_sets(data: Path) -> list[str]:
    """Name the folders of `data` that hold ``train`` and ``val``."""
    return sorted(
        path.parent.name for path in data.glob("*/train") if (path.parent / "val").is_dir()
    )


def spread_planes(counts: Sequence[int], budget: Budget) -> list[list[int]]:
    """Choose evenly spaced planes, counted over all files.

    Parameters
    ----------
    counts : sequence of int
        Planes of each file.
    budget : {"one", "quarter", "all"}
        The middle plane, a quarter of the planes (at least one), or all.

    Returns
    -------
    list of list of int
        The chosen planes of each file.
    """
    places = [(file, plane) for file, count in enumerate(counts) for plane in range(count)]
    total = len(places)
    wanted = {"one": 1, "quarter": max(1, round(total / 4)), "all": total}[budget]
    chosen = [total // 2] if wanted == 1 else np.linspace(0, total - 1, wanted).round().astype(int)
    planes: list[list[int]] = [[] for _ in counts]
    for index in chosen:
        file, plane = places[index]
        planes[file].append(plane)
    return planes


def pretraining_images(
    data: Path, sets: Sequence[str], extra: Sequence[Path] = ()
) -> list[ImageSource]:
    """Open what networks are pretrained on: unlabelled images and the sets' training images.

    Parameters
    ----------
    data : Path
        Folder of the sets, and of `UNLABELLED`, if there is one.
    sets : sequence of str
        Sets whose training images are used.
    extra : sequence of Path
        More files and folders.

    Raises
    ------
    ValueError
        If a validation image of any labelled set in `data` is among them.
    """
    folders = [data / name / "train" / "images" for name in sets]
    unlabelled = data / UNLABELLED
    found = find_sources([*([unlabelled] if unlabelled.is_dir() else []), *folders, *extra])
    if found.skipped:
        reasons = "; ".join(f"{item.path}: {item.reason}" for item in found.skipped)
        raise ValueError(f"images to pretrain on cannot be read: {reasons}")
    kept_apart = find_sources([data / name / "val" / "images" for name in labelled_sets(data)])
    prints = {source.fingerprint() for source in kept_apart.sources}
    leaked = [source.name for source in found.sources if source.fingerprint() in prints]
    if leaked:
        raise ValueError(f"validation images must not be pretrained on: {', '.join(leaked)}")
    return found.sources
