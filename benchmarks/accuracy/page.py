"""Puts the scores of a campaign into a page of the documentation."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from accuracy.report import Result, by_set, machines, means_table, scores_table, split

BEGIN = "<!-- scores: written by benchmarks/accuracy report --into -->"
END = "<!-- end of the scores -->"


def write_page(results: Iterable[Result], pictures: Sequence[Path], page: Path) -> None:
    """Replace what stands between the two marks of a page, and its pictures.

    Parameters
    ----------
    results : iterable of Mapping
        Lines of ``results.jsonl``.
    pictures : sequence of Path
        Those that the page shows are copied to it: as ``images/PAGE-NAME`` beside it.
    page : Path
        Markdown.

    Raises
    ------
    ValueError
        If the page lacks the marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the scores: it lacks {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{scores_of(results)}{after}", encoding="utf-8")
    for picture in pictures:
        name = f"images/{page.stem}-{picture.name}"
        if name in text:
            shutil.copy(picture, page.parent / name)


def scores_of(results: Iterable[Result]) -> str:
    """Write the tables of a page, with their marks: the recipe itself, without its variants."""
    _, segmented = split(results)
    shown = [result for result in segmented if not result["job"]["variant"]]
    parts = [
        BEGIN,
        *(f"**{name}**\n\n{scores_table(found)}" for name, found in by_set(shown).items()),
        f"**Mean of the sets**\n\n{means_table(shown)}",
        "\n".join(f"- {machine}" for machine in machines(shown)),
        END,
    ]
    return "\n\n".join(parts)
