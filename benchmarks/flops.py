"""Operations of one training step: PyTorch's counter beside everything executed.

Counted on the CPU, where every operator is PyTorch's own and can be seen.
"""

import argparse
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import torch
from environment import RESULTS, WIDTH, describe, write_csv
from models import MODELS, TASKS, build, make_loss
from operations import OperationCounter
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

KINDS = ("gathered sums", "reductions", "pointwise", "sorting")


def main() -> None:
    """Count, print and save."""
    arguments = parse_arguments()
    rows: list[dict[str, object]] = []
    jobs = [(name, size) for size in arguments.sizes for name in arguments.models]
    for name, size in track(jobs, "counting"):
        for direction, (torch_count, counts) in count(name, arguments.task, size).items():
            rows.append(
                {
                    "model": name,
                    "size": size,
                    "task": arguments.task,
                    "pass": direction,
                    "torch_gflop": torch_count / 1e9,
                    "all_gflop": sum(counts.values()) / 1e9,
                }
                | {kind.replace(" ", "_") + "_gflop": counts[kind] / 1e9 for kind in KINDS}
            )
    Console(width=WIDTH).print(table_of(rows))
    environment = describe(torch.device("cpu"))
    write_csv(
        arguments.out or RESULTS / f"flops_{arguments.task}.csv",
        [row | environment for row in rows],
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], metavar="PX")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["affmae-small", "vit-small"]
    )
    parser.add_argument("--task", choices=TASKS, default="pretrain")
    parser.add_argument("--out", type=Path, help="CSV; by default in benchmarks/results")
    return parser.parse_args()


def count(name: str, task: str, size: int) -> dict[str, tuple[int, Counter[str]]]:
    """Count one image's step.

    Returns
    -------
    dict
        For ``"forward"`` and ``"both"`` passes: the total of PyTorch's counter,
        and all operations by kind.
    """
    model = build(name, task)
    loss = make_loss(model, task, size, batch=1, device=torch.device("cpu"), seed=0)
    # The ViT's operators depend on shapes alone, so nothing of it needs computing;
    # those of AFFMAE depend on values.
    shapes_suffice = name.startswith("vit")
    mode = FakeTensorMode(allow_non_fake_inputs=True) if shapes_suffice else nullcontext()
    results = {}
    with mode, FlopCounterMode(display=False) as flops, OperationCounter() as operations:
        value = loss()
        results["forward"] = flops.get_total_flops(), operations.counts.copy()
        value.backward()
    results["both"] = flops.get_total_flops(), operations.counts
    return results


def table_of(rows: list[dict[str, object]]) -> Table:
    """Lay out the counts, in units of 10^9 operations."""
    table = Table(title="10⁹ operations, one image", box=MARKDOWN)
    for heading in ("model", "px", "pass", "PyTorch's counter", "all", *KINDS):
        table.add_column(heading, justify="left" if heading in {"model", "pass"} else "right")
    for row in rows:
        words = [str(row[key]) for key in ("model", "size", "pass")]
        numbers = [value for key, value in row.items() if key.endswith("gflop")]
        table.add_row(*words, *(f"{number:.1f}" for number in numbers))
    return table


if __name__ == "__main__":
    main()
