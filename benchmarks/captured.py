"""Captured steps on one GPU: AFFMAE against the ViT-MAE, forward + loss + backward.

Every case has a process of its own, in which the networks are recorded as CUDA
graphs; the cases are prepared side by side and timed one after the other. The
ViT is timed as PyTorch runs it (with FlashAttention), and with its blocks
compiled.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from environment import RESULTS, WIDTH, describe, write_csv
from models import build, make_loss
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import nn
from vit import Block

from napari_affmae.model.capture import Captured, CapturedStep, Copies

MIB = 2**20
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
VARIANTS = ("affmae", "vit", "vit compiled")
Capture = Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """What is compared, and by how much AFFMAE should be ahead (time, memory)."""

    size: str
    task: str
    pixels: int
    batch: int
    targets: tuple[float, float] | None = None


CASES = (
    Case("base", "pretrain", 512, 4, (3.0, 2.5)),
    Case("base", "pretrain", 1024, 4, (8.0, 3.0)),
    Case("base", "finetune", 512, 4, (4.0, 2.5)),
    Case("base", "finetune", 1024, 4, (10.0, 3.0)),
    Case("small", "pretrain", 512, 16),
    Case("small", "pretrain", 1024, 8),
    # 25 tiles are a plane of 4096 x 4096 pixels with an overlap of 128.
    Case("base", "segment", 1024, 5, (5.0, 1.0)),
)


def main() -> None:
    """Measure, print and save; or, as a worker, measure one case when told to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    parser.add_argument("--out", type=Path, default=RESULTS / "captured.csv")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(CASES[arguments.worker], PRECISIONS[arguments.precision], arguments.repeats)
        return
    environment = describe(torch.device("cuda"))
    rows: list[dict[str, object]] = []
    for measured in measure(arguments):
        rows += measured
        write_csv(arguments.out, [row | environment for row in rows])
    Console(width=WIDTH).print(table_of(rows, environment))


def measure(arguments: argparse.Namespace) -> Iterator[list[dict[str, object]]]:
    """Start a worker for each case; let them prepare together and measure in turns."""
    options = ["--precision", arguments.precision, "--repeats", str(arguments.repeats)]
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "--worker", str(case), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for case in arguments.cases
    ]
    ready = [worker.stdout.readline() if worker.stdout else "" for worker in workers]
    for case, worker, answer in zip(arguments.cases, workers, ready, strict=True):
        output, _ = worker.communicate("go\n")
        if not answer or worker.returncode:
            print(f"{CASES[case]} failed", file=sys.stderr)
            continue
        yield json.loads(output.splitlines()[-1])


def work(case: Case, dtype: torch.dtype, repeats: int) -> None:
    """Prepare all variants of a case, wait for a line, time them in turns."""
    prepared = {variant: prepare(case, variant, dtype) for variant in VARIANTS}
    torch.cuda.empty_cache()
    print("ready", flush=True)
    sys.stdin.readline()
    replays = {variant: capture() for variant, (capture, _) in prepared.items()}
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(repeats):
        for variant, replay in replays.items():
            times[variant].append(timed(replay))
    rows = [
        {
            "model": f"{variant} {case.size}",
            "task": case.task,
            "size": case.pixels,
            "batch": case.batch,
            "precision": str(dtype).removeprefix("torch."),
            "repeats": repeats,
            "median_ms": statistics.median(times[variant]),
            "fastest_ms": min(times[variant]),
            "slowest_ms": max(times[variant]),
            "images_per_s": case.batch / statistics.median(times[variant]) * 1e3,
            "peak_mib": memory,
            "time_target": case.targets[0] if case.targets else "",
            "memory_target": case.targets[1] if case.targets else "",
        }
        for variant, (_, memory) in prepared.items()
    ]
    print(json.dumps(rows))


def prepare(case: Case, variant: str, dtype: torch.dtype) -> tuple[Capture, float]:
    """Build and compile one network; returns what captures it, and its peak memory in MiB."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    task = "finetune" if case.task == "segment" else case.task
    model = build(f"{variant.removesuffix(' compiled')}-{case.size}", task).to(device)
    if variant == "vit compiled":
        for module in model.modules():
            if isinstance(module, Block):
                module.compile(dynamic=False)
    runner: nn.Module = Copies(model, dtype) if variant == "affmae" else model
    if case.task == "segment":
        return prepare_inference(case, runner.eval(), dtype, before)
    loss = make_loss(runner, task, case.pixels, case.batch, device, seed=0)

    def step(_: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", dtype, cache_enabled=False):
            value = loss()
        value.backward()
        return value.detach()

    def capture() -> Callable[[], object]:
        captured = CapturedStep(step, [trigger], list(model.parameters()))
        return lambda: captured(trigger)

    trigger = torch.zeros(1, device=device)
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats()
        step(trigger)
    memory = (torch.cuda.max_memory_allocated() - before) / MIB
    model.zero_grad(set_to_none=True)
    return capture, memory


def prepare_inference(
    case: Case, model: nn.Module, dtype: torch.dtype, before: int
) -> tuple[Capture, float]:
    """Do the same for a forward pass on a batch of tiles."""
    tiles = torch.randn(case.batch, 1, case.pixels, case.pixels, device="cuda")

    def forward() -> None:
        with torch.no_grad(), torch.autocast("cuda", dtype, cache_enabled=False):
            model(tiles)

    def capture() -> Callable[[], object]:
        captured = Captured(lambda _: forward(), [trigger])
        return lambda: captured(trigger)

    trigger = torch.zeros(1, device="cuda")
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        forward()
    return capture, (torch.cuda.max_memory_allocated() - before) / MIB


def timed(replay: Callable[[], object]) -> float:
    """Time one replay in milliseconds."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    replay()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def table_of(rows: Sequence[dict[str, object]], environment: dict[str, str]) -> Table:
    """Lay out times and memory, and how far AFFMAE is ahead of the network in the row."""
    title = ", ".join(environment[key] for key in ("device", "date", "commit"))
    table = Table(title=f"{title}, torch {environment['torch']}", box=MARKDOWN)
    for heading in ("model", "task", "px", "batch", "ms", "img/s", "MiB"):
        table.add_column(heading, justify="left" if heading in {"model", "task"} else "right")
    for heading in ("time / AFFMAE", "target", "memory / AFFMAE", "target"):
        table.add_column(heading, justify="right")
    own: dict[str, object] = {}
    for row in rows:
        if str(row["model"]).startswith("affmae"):
            own = row
        table.add_row(
            *(str(row[key]) for key in ("model", "task", "size", "batch")),
            f"{row['median_ms']:.2f}",
            f"{row['images_per_s']:.0f}",
            f"{row['peak_mib']:.0f}",
            f"{ratio(row, own, 'median_ms'):.2f}",
            f"≥ {row['time_target']}" if row["time_target"] else "",
            f"{ratio(row, own, 'peak_mib'):.2f}",
            f"≥ {row['memory_target']}" if row["memory_target"] else "",
        )
    return table


def ratio(row: dict[str, object], own: dict[str, object], key: str) -> float:
    """Divide a row's number by AFFMAE's."""
    return float(str(row[key])) / float(str(own[key]))


if __name__ == "__main__":
    main()
