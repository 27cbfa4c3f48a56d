"""Damage image files at random; reading them gives values or documented errors.

Each file is read in a process of its own, with little memory and little time.
"""

import random
import re
import resource
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_affmae.data import check_sources, open_source, synthetic_em
from napari_affmae.errors import AffmaeError
from reliability import children
from reliability.formats import FORMATS, Format

SECONDS = 20.0
BYTES = 2 * 2**30
_WAYS = ("bits", "field", "zeros", "cut", "insert", "remove", "repeat", "swap")
_FIELDS = (0, 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


@dataclass(frozen=True)
class Trial:
    """One damaged file and what came of it.

    Attributes
    ----------
    format : str
        The name in the table.
    seed : int
        Of the damage.
    outcome : "value", "error" or "fault"
        An error is a documented one.
    words : str
        What was said, or how the process ended.
    bytes : int
        The most memory that the process held.
    """

    format: str
    seed: int
    outcome: str
    words: str
    bytes: int


def damage(content: bytes, chance: random.Random) -> bytes:
    """Change a few places of a file, mostly near its ends, where headers are."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        near = min(len(changed), chance.choice((32, 256, 2048, len(changed) or 1)))
        place = chance.randrange(near or 1)
        if chance.random() < 0.25:
            place = max(0, len(changed) - 1 - place)
        _change(changed, chance.choice(_WAYS), place, chance)
    return bytes(changed)


def _change(content: bytearray, way: str, place: int, chance: random.Random) -> None:
    length = chance.choice((1, 2, 4, 8, 64))
    match way:
        case "bits" if content:
            content[place % len(content)] ^= 1 << chance.randrange(8)
        case "field":
            size = chance.choice((1, 2, 4, 8))
            order = chance.choice(("little", "big"))
            number = chance.choice(_FIELDS) % 256**size
            content[place : place + size] = number.to_bytes(size, order)
        case "zeros":
            content[place : place + length] = bytes(min(length, len(content) - place))
        case "cut":
            del content[place:]
        case "insert":
            content[place:place] = chance.randbytes(length)
        case "remove":
            del content[place : place + length]
        case "repeat":
            content[place:place] = content[place : place + length] * chance.choice((1, 9, 500))
        case "swap":
            other = chance.randrange(len(content) or 1)
            content[place : place + length] = content[other : other + length]


def damage_image(path: Path, chance: random.Random) -> None:
    """Damage a file, or one of the files of a folder, which may also go or become another."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        # What describes the image is a few among many chunks.
        said = [file for file in files if file.name.startswith((".z", "zarr.", "attributes."))]
        path = chance.choice(said if chance.random() < 0.6 else files)
        if chance.random() < 0.1:
            path.unlink()
            return
    path.write_bytes(damage(path.read_bytes(), chance))


def read_image(tell: Callable[[Any], None], path: Path) -> None:
    """Read an image as runs do, within the limits."""
    for limit, number in (
        (resource.RLIMIT_AS, BYTES + _address_space()),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (number, number))
    try:
        source = open_source(path)
        source.fingerprint()
        source.read(source.n_planes - 1, slice(0, 64), slice(0, 64))
        check_sources([source], crop=64, batch=2)
        said = "value", ""
    except AffmaeError as error:
        said = "error", f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - it is what is looked for
        said = "fault", traceback.format_exc()
    tell((*said, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def _address_space() -> int:
    """Bytes that the libraries' code has reserved, which are no memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def attempt(whole: Path, kind: Format, seed: int) -> Trial:
    """Damage a copy of a file, and read it."""
    chance = random.Random(f"{kind.name} {seed}")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / kind.name
        copy = shutil.copytree if whole.is_dir() else shutil.copy
        copy(whole, path)
        damage_image(path, chance)
        return judge(kind.name, seed, children.run(read_image, [path], SECONDS))


def judge(name: str, seed: int, ending: children.Ending) -> Trial:
    """Say what came of reading a file in a process that has ended."""
    if ending.told and ending.code == 0:
        return Trial(name, seed, *ending.told[0])
    words = "it took too long" if ending.code is None else f"the process ended with {ending.code}"
    return Trial(name, seed, "fault", words, 0)


def written(folder: Path) -> Iterator[tuple[Format, Path | str]]:
    """Write a file of each format; yield where it is, or why there is none."""
    pixels = np.asarray(synthetic_em((4, 64, 64), seed=0)[0])
    for kind in FORMATS:
        path = folder / kind.name
        try:
            if kind.is_read:
                kind.write(path, pixels)
        except ImportError as error:
            yield kind, str(error)
            continue
        yield kind, path if kind.is_read else "not read by this version"


def fuzz(count: int, seed: int = 0, *, only: str = "", at_once: int = 1) -> list[Trial]:
    """Damage and read files of all formats in turn.

    Parameters
    ----------
    count : int
        How many in all.
    seed : int
        Of the damages.
    only : str
        Take the formats in whose names this regular expression is found.
    at_once : int
        Processes beside each other. With several, Python at times loses an exit code (255).

    Raises
    ------
    ValueError
        If a file that is not damaged cannot be read, or there is none.
    """
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(at_once) as threads:
        whole = {kind: path for kind, path in written(Path(place)) if isinstance(path, Path)}
        kinds = [kind for kind in whole if re.search(only, kind.name)]
        for kind in kinds:
            told = children.run(read_image, [whole[kind]], SECONDS).told
            if not told or told[0][0] != "value":
                raise ValueError(f"{kind.name} cannot be read although it is whole: {told}")
        jobs = [
            (kinds[number % len(kinds)], seed + number // len(kinds)) for number in range(count)
        ]
        return list(threads.map(lambda job: attempt(whole[job[0]], *job), jobs))


def table(trials: list[Trial]) -> str:
    """Count the outcomes of each format, as a Markdown table."""
    lines = ["| file | read | values | errors | faults | most MB |", "|---|---|---|---|---|---|"]
    names = dict.fromkeys(trial.format for trial in trials)
    for name in [*names, ""]:
        of = [trial for trial in trials if name in ("", trial.format)]
        counts = Counter(trial.outcome for trial in of)
        most = max(trial.bytes for trial in of) / 1e6
        numbers = " | ".join(str(counts[key]) for key in ("value", "error", "fault"))
        lines.append(f"| {name or 'all'} | {len(of)} | {numbers} | {most:.0f} |")
    return "\n".join(lines)
