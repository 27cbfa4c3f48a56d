"""Time and peak memory of a training step: AFFMAE against the ViT-MAE.

Forward and backward pass, without the optimiser. All networks are timed in one
process, taking turns, so that a slower minute of the machine meets all of them;
memory is measured in a fresh process each, since a process never gives all of
its memory back.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from environment import RESULTS, WIDTH, describe, write_csv
from models import MODELS, TASKS, build, make_loss
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import nn

MIB = 2**20
# Let glibc give freed blocks of a megabyte or more back to the system at once, so
# that the resident size is what a network needs. Python cannot set this from inside.
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": str(MIB)}
Key = tuple[str, int]
Pair = tuple[Key, Key]
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# (network, size) against (network, size): time and memory, at most; for pretraining
# on a CPU in fp32, one image at a time.
TARGETS = {
    (("affmae-small", 512), ("vit-small", 512)): (0.35, 0.6),
    (("affmae-small", 1024), ("vit-small", 1024)): (0.12, 0.4),
    (("affmae-small", 1024), ("affmae-small", 512)): (4.6, None),
}


@dataclass(frozen=True)
class Measurement:
    """One network at one size.

    Memory is in MiB: on a CPU the largest resident size of the process and its
    size before the network was built; on a GPU what PyTorch had allocated.
    `kept_mib` is what the C library's allocator adds to the peak on a CPU by
    keeping freed blocks for later, as it does unless told otherwise.
    """

    model: str
    size: int
    task: str
    batch: int
    precision: str
    parameters: int
    repeats: int
    median_s: float
    fastest_s: float
    slowest_s: float
    peak_mib: float
    baseline_mib: float
    kept_mib: float

    @property
    def used_mib(self) -> float:
        """Peak memory of the network itself: weights, gradients, activations."""
        return self.peak_mib - self.baseline_mib


def main() -> None:
    """Measure, print and save."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if arguments.memory_of:
        print(json.dumps(measure_memory(arguments.memory_of, arguments, device)))
        return
    console = Console(width=WIDTH)
    results = []
    for size in arguments.sizes:
        times, parameters = measure_times(arguments, size, device)
        for name in arguments.models:
            memory = memory_in_fresh_process(name, arguments, size, RETURN_FREED)
            usual = memory_in_fresh_process(name, arguments, size, {})
            kept = used(usual) - used(memory)
            results.append(
                Measurement(
                    model=name,
                    size=size,
                    task=arguments.task,
                    batch=arguments.batch,
                    precision=arguments.precision,
                    parameters=parameters[name],
                    repeats=arguments.repeats,
                    median_s=statistics.median(times[name]),
                    fastest_s=min(times[name]),
                    slowest_s=max(times[name]),
                    peak_mib=memory["peak_mib"],
                    baseline_mib=memory["baseline_mib"],
                    kept_mib=kept,
                )
            )
    environment = describe(device)
    console.print(measurement_table(results, environment))
    setting = (arguments.task, device.type, arguments.precision, arguments.batch)
    targets = TARGETS if setting == ("pretrain", "cpu", "fp32", 1) else {}
    console.print(ratio_table(results, targets))
    rows = [asdict(m) | {"used_mib": m.used_mib} | environment for m in results]
    write_csv(arguments.out or RESULTS / f"speed_{arguments.task}_{device.type}.csv", rows)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], metavar="PX")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["affmae-small", "vit-small"]
    )
    parser.add_argument("--task", choices=TASKS, default="pretrain")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--precision", choices=AUTOCAST, default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--out", type=Path, help="CSV; by default in benchmarks/results")
    parser.add_argument("--memory-of", choices=MODELS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_times(
    arguments: argparse.Namespace, size: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Time all networks in turns; returns their seconds and parameter counts."""
    models = {name: build(name, arguments.task).to(device) for name in arguments.models}
    times: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(-arguments.warmup, arguments.repeats):
        for name, model in models.items():
            seconds = timed_step(model, arguments, size, device, seed=max(repeat, 0))
            if repeat >= 0:
                times[name].append(seconds)
    parameters = {
        name: sum(parameter.numel() for parameter in model.parameters())
        for name, model in models.items()
    }
    return times, parameters


def timed_step(
    model: nn.Module, arguments: argparse.Namespace, size: int, device: torch.device, seed: int
) -> float:
    """Run one forward and backward pass; returns its seconds."""
    loss = make_loss(model, arguments.task, size, arguments.batch, device, seed)
    model.zero_grad(set_to_none=True)
    if device.type != "cuda":
        start = time.perf_counter()
        with autocast(arguments.precision, device):
            value = loss()
        value.backward()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    with autocast(arguments.precision, device):
        value = loss()
    value.backward()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Enter mixed precision, or nothing for fp32."""
    dtype = AUTOCAST[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def used(memory: Mapping[str, float]) -> float:
    """Subtract what was there before the network."""
    return memory["peak_mib"] - memory["baseline_mib"]


def memory_in_fresh_process(
    name: str, arguments: argparse.Namespace, size: int, environment: Mapping[str, str]
) -> dict[str, float]:
    """Run `measure_memory` in a process of its own, with these variables set."""
    command = [sys.executable, __file__, "--memory-of", name, "--sizes", str(size)]
    for option in ("task", "batch", "precision", "device", "threads"):
        command += [f"--{option}", str(getattr(arguments, option))]
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    if finished.returncode:
        raise SystemExit(f"measuring the memory of {name} failed:\n{finished.stderr}")
    memory: dict[str, float] = json.loads(finished.stdout)
    return memory


def measure_memory(
    name: str, arguments: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """Run one step in this fresh process; returns its memory in MiB."""
    (size,) = arguments.sizes
    baseline = 0.0
    if device.type == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
        baseline = resident_mib("VmRSS")
    model = build(name, arguments.task).to(device)
    timed_step(model, arguments, size, device, seed=0)
    if device.type == "cpu":
        peak = resident_mib("VmHWM")
    else:
        peak = torch.cuda.max_memory_allocated(device) / MIB
    return {"peak_mib": peak, "baseline_mib": baseline}


def resident_mib(field: str) -> float:
    """Read this process's resident size (VmRSS) or its peak (VmHWM) from Linux.

    `getrusage` would not do: its peak is inherited from the parent process.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"{field} is not in /proc/self/status; memory is measured on Linux only")


def measurement_table(results: Sequence[Measurement], environment: dict[str, str]) -> Table:
    """Lay out what was measured."""
    title = ", ".join(environment[key] for key in ("device", "date", "commit"))
    title += f", torch {environment['torch']}, {environment['threads']} threads"
    table = Table(title=title, box=MARKDOWN)
    for heading in ("model", "px", "batch", "M parameters", "median s", "fastest", "slowest"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for heading in ("used MiB", "peak MiB", "before MiB", "kept MiB"):
        table.add_column(heading, justify="right")
    for m in results:
        table.add_row(
            m.model,
            str(m.size),
            str(m.batch),
            f"{m.parameters / 1e6:.1f}",
            *(f"{seconds:.3f}" for seconds in (m.median_s, m.fastest_s, m.slowest_s)),
            *(f"{mib:.0f}" for mib in (m.used_mib, m.peak_mib, m.baseline_mib, m.kept_mib)),
        )
    return table


def ratio_table(
    results: Sequence[Measurement], targets: Mapping[Pair, tuple[float, float | None]]
) -> Table:
    """Lay out the ratios, with targets where there are some."""
    table = Table(title="ratios", box=MARKDOWN)
    for heading in ("of", "to", "time", "target", "memory used", "target", "and kept"):
        table.add_column(heading, justify="left" if heading in {"of", "to"} else "right")
    by_key = {(m.model, m.size): m for m in results}
    for first, second in ratio_pairs(by_key):
        a, b = by_key[first], by_key[second]
        time_target, memory_target = targets.get((first, second), (None, None))
        table.add_row(
            f"{a.model} {a.size}",
            f"{b.model} {b.size}",
            f"{a.median_s / b.median_s:.3f}",
            "" if time_target is None else f"≤ {time_target}",
            f"{a.used_mib / b.used_mib:.3f}",
            "" if memory_target is None else f"≤ {memory_target}",
            f"{(a.used_mib + a.kept_mib) / (b.used_mib + b.kept_mib):.3f}",
        )
    return table


def ratio_pairs(keys: Collection[Key]) -> list[Pair]:
    """Pair each AFFMAE with its ViT, and each network with itself at the size before."""
    pairs = []
    sizes = sorted({size for _, size in keys})
    for name, size in keys:
        rival = (name.replace("affmae", "vit"), size)
        if name.startswith("affmae") and rival in keys:
            pairs.append(((name, size), rival))
    for name, size in keys:
        smaller = [other for other in sizes if other < size and (name, other) in keys]
        if smaller:
            pairs.append(((name, size), (name, smaller[-1])))
    return pairs


if __name__ == "__main__":
    main()
