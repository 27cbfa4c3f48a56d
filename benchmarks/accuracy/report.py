"""Tables of a campaign, in Markdown, made from its results alone."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy.datasets import BUDGETS
from napari_affmae.engine.store.starting_weights import starting_weights

Result = Mapping[str, Any]

SCORED = (
    "Mean IoU on validation images, from one confusion matrix over all their planes; mean and "
    "standard deviation over seeds (their number). The validation images also choose the best "
    "of each run's validations. Behind each budget stands its number of labelled planes."
)


def split(results: Iterable[Result]) -> tuple[list[Result], list[Result]]:
    """Part the results of pretraining from those of segmentation."""
    known = list(results)
    return (
        [result for result in known if result["job"]["kind"] == "pretrain"],
        [result for result in known if result["job"]["kind"] == "segment"],
    )


def by_method(segmented: Sequence[Result]) -> dict[str, list[Result]]:
    """Group results by method, in the order in which methods first come."""
    groups: dict[str, list[Result]] = {}
    for result in segmented:
        groups.setdefault(result["job"]["method"], []).append(result)
    return groups


def total_gpu_seconds(result: Result, pretrained: Mapping[str, Result]) -> float | None:
    """Add up the GPU time of a segmentation run and the pretraining that it starts from.

    Weights that come with the program have taken none of the user's. None where a run starts
    from a file whose time is not known.
    """
    start = result["job"]["start"]
    if start is None or start in starting_weights():
        return float(result["gpu_seconds"])
    if start not in pretrained:
        return None
    return float(result["gpu_seconds"]) + float(pretrained[start]["gpu_seconds"])


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Write a mean, and the standard deviation where there are several values."""
    text = f"{statistics.fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f} ({len(values)})"
    return text


def write_report(results: Iterable[Result], path: Path) -> None:
    """Write all tables into one Markdown file.

    Parameters
    ----------
    results : iterable of Mapping
        Lines of ``results.jsonl``.
    path : Path
        Replaced where it exists.
    """
    pretrained, segmented = split(results)
    sections = [
        "# Segmentation of real images",
        "\n".join(f"- {machine}" for machine in machines([*pretrained, *segmented])),
        SCORED,
        *(f"## {name}\n\n{scores_table(found)}" for name, found in by_set(segmented).items()),
        f"## Mean over sets\n\n{means_table(segmented)}",
        f"## Classes\n\n{_classes(segmented)}",
        f"## Cost\n\n{_costs(segmented, pretrained)}",
    ]
    if pretrained:
        sections.append(f"## Pretraining\n\n{_pretrainings(pretrained)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def machines(results: Sequence[Result]) -> list[str]:
    """Name what was measured on, each once."""
    words = "{device}, torch {torch}, commit {commit}, {date}"
    return sorted({words.format(**result["machine"]) for result in results})


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_set(segmented: Sequence[Result]) -> dict[str, list[Result]]:
    """Group results by their sets, by name."""
    names = sorted({result["job"]["dataset"] for result in segmented})
    return {
        name: [result for result in segmented if result["job"]["dataset"] == name] for name in names
    }


def _budgets(segmented: Sequence[Result]) -> list[str]:
    present = {result["job"]["budget"] for result in segmented}
    return [budget for budget in reversed(BUDGETS) if budget in present]


def _of_budget(results: Sequence[Result], budget: str) -> list[Result]:
    return [result for result in results if result["job"]["budget"] == budget]


def scores_table(segmented: Sequence[Result]) -> str:
    """Lay out the scores on one set: a row for each method, a column for each budget."""
    budgets = _budgets(segmented)
    planes = [_of_budget(segmented, budget)[0]["planes"] for budget in budgets]
    headings = ["method", *(f"{budget} ({n})" for budget, n in zip(budgets, planes, strict=True))]
    rows = [
        [method, *(_cell(_of_budget(found, budget)) for budget in budgets)]
        for method, found in by_method(segmented).items()
    ]
    return table(headings, rows)


def _cell(results: Sequence[Result]) -> str:
    return spread([result["mean_iou"] for result in results]) if results else ""


def means_table(segmented: Sequence[Result]) -> str:
    """Average over sets, seed by seed; only where a method has all sets."""
    sets, budgets = len(by_set(segmented)), _budgets(segmented)
    rows = []
    for method, found in by_method(segmented).items():
        cells = [method]
        for budget in budgets:
            seeds: dict[int, list[float]] = {}
            for result in _of_budget(found, budget):
                seeds.setdefault(result["job"]["seed"], []).append(result["mean_iou"])
            means = [statistics.fmean(scores) for scores in seeds.values() if len(scores) == sets]
            cells.append(spread(means) if means else "")
        rows.append(cells)
    return table(["method", *budgets], rows)


def _classes(segmented: Sequence[Result]) -> str:
    rows = []
    for name, of_set in by_set(segmented).items():
        for budget in _budgets(of_set):
            for method, found in by_method(_of_budget(of_set, budget)).items():
                scores = [_class_score(label, found) for label in found[0]["iou"]]
                rows.append([name, budget, method, ", ".join(scores)])
    return table(["set", "labels", "method", "IoU by class"], rows)


def _class_score(label: str, results: Sequence[Result]) -> str:
    """Write the IoU of a class, none where neither labels nor predictions have it."""
    scores = [result["iou"][label] for result in results]
    known = [score for score in scores if score is not None]
    return f"{label} {spread(known) if known else 'none'}"


def _costs(segmented: Sequence[Result], pretrained: Sequence[Result]) -> str:
    known = {result["name"]: result for result in pretrained}
    rows = []
    for method, found in by_method(segmented).items():
        totals = [total_gpu_seconds(result, known) for result in found]
        rows.append(
            [
                method,
                _median(found, "parameters", 1e-6, 1),
                _median(found, "steps", 1, 0),
                _median(found, "seconds", 1, 0),
                _median(found, "workers", 1, 0),
                _median(found, "gpu_seconds", 1 / 60, 2),
                "" if None in totals else f"{statistics.median(totals) / 60:.2f}",
                _median(found, "crops_per_second", 1, 0),
                _median(found, "gib", 1, 1),
            ]
        )
    headings = ["method", "M parameters", "steps", "seconds", "runs beside", "GPU minutes"]
    return table([*headings, "with pretraining", "crops/s", "GiB"], rows)


def _median(results: Sequence[Result], key: str, factor: float, digits: int) -> str:
    values = [result[key] for result in results if result.get(key) is not None]
    return f"{statistics.median(values) * factor:.{digits}f}" if values else ""


def _pretrainings(pretrained: Sequence[Result]) -> str:
    rows = [
        [
            result["name"],
            f"{result['parameters'] / 1e6:.1f}",
            str(result["steps"]),
            f"{result['crops'] / 1e6:.3f}",
            f"{result['seconds'] / 60:.2f}",
            _median([result], "crops_per_second", 1, 0),
            _median([result], "gib", 1, 1),
            _median([result], "loss", 1, 3),
            "; ".join(
                f"{name} " + " / ".join(f"{rank:.0f}" for rank in ranks)
                for name, ranks in result["effective_rank"].items()
            ),
        ]
        for result in pretrained
    ]
    headings = ["run", "M parameters", "steps", "M crops", "minutes", "crops/s", "GiB"]
    return table([*headings, "last loss", "effective rank of the encoder's stages"], rows)
