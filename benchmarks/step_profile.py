"""Where a step of a training run takes longer than the network alone, on one GPU.

Records what the GPU does in some steps of both (see ``throughput.py``), in the middle of a run
and at its end, and prints for each how long a step is, how long the GPU rests in it, its clock,
and the kernels whose time differs most.
"""

import argparse
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from environment import RESULTS, WIDTH, describe, write_csv
from rich.console import Console
from throughput import Case, Stock, cases, run_of, steps_alone, table_of
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from napari_affmae.config import TrainingConfig
from napari_affmae.engine.events import Event, StepDone

STEPS = 100
LISTED = 12
NAME = 60


@dataclass(frozen=True)
class Work:
    """Something that the GPU did: microseconds since some time."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Recording:
    """What the GPU did in some steps, and its clock meanwhile."""

    work: Sequence[Work]
    megahertz: float

    def count(self, name: str) -> int:
        """Count how often a kernel ran."""
        return sum(one.name == name for one in self.work)


@dataclass(frozen=True)
class StepProfile:
    """A mean step, in milliseconds: from one to the next, at rest, and in each kernel."""

    length: float
    rest: float
    kernels: Mapping[str, float]
    megahertz: float

    @classmethod
    def of(cls, recording: Recording, steps: float) -> "StepProfile":
        """Average what was recorded over a number of steps."""
        work = sorted(recording.work, key=lambda item: item.start)
        kernels: dict[str, float] = defaultdict(float)
        busy, until = 0.0, work[0].start
        for one in work:
            kernels[one.name] += (one.end - one.start) / 1e3 / steps
            busy += max(0.0, one.end - max(one.start, until))
            until = max(until, one.end)
        length = (until - work[0].start) / 1e3 / steps
        return cls(length, length - busy / 1e3 / steps, kernels, recording.megahertz)


def record(act: Callable[[], object]) -> Recording:
    """Record the GPU while something is done."""
    clock = subprocess.Popen(
        ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        act()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    work = [Work(e.name[:NAME], e.time_range.start, e.time_range.end) for e in events]
    return Recording(work, float(clock.communicate()[0].split()[0]))


def record_alone(config: TrainingConfig, stock: Stock) -> Recording:
    """Record steps on a batch that is cut already."""
    with steps_alone(config, stock.sources("array")[:1]) as (make, _):
        make(10 * STEPS)
        return record(lambda: make(STEPS))


def record_run(config: TrainingConfig, stock: Stock, at: Sequence[float]) -> dict[str, Recording]:
    """Record some steps of a run after parts of its time."""
    assert config.minutes is not None
    found: dict[str, Recording] = {}
    events = run_of(config, stock.sources("array"), stock.folder / "run")
    waiting = sorted(at)
    for event in events:
        if not isinstance(event, StepDone) or not waiting:
            continue
        if event.seconds_left <= 60 * config.minutes * (1 - waiting[0]):
            share = waiting.pop(0)
            found[f"run, at {share:.0%}"] = record(lambda: pass_steps(events, STEPS))
    return found


def pass_steps(events: Iterator[Event], number: int) -> None:
    """Go on with a run for some steps."""
    steps = (event for event in events if isinstance(event, StepDone))
    for _ in islice(steps, number):
        pass


def profiles_of(alone: Recording, runs: Mapping[str, Recording]) -> dict[str, StepProfile]:
    """Average over steps; in runs, whose events come in bundles, a kernel counts them."""
    names = {one.name for one in alone.work}
    seconds = {name: sum(w.end - w.start for w in alone.work if w.name == name) for name in names}
    counted = max(seconds, key=lambda name: seconds[name])
    each = alone.count(counted) / STEPS
    profiles = {"network alone": StepProfile.of(alone, STEPS)}
    return profiles | {
        label: StepProfile.of(run, run.count(counted) / each) for label, run in runs.items()
    }


def rows_of(case: Case, profiles: Mapping[str, StepProfile]) -> list[dict[str, object]]:
    """Lay out the steps, and the kernels that differ most from the first of them."""
    alone = next(iter(profiles.values())).kernels
    names = {name for each in profiles.values() for name in each.kernels}

    def differs(name: str) -> float:
        return max(abs(p.kernels.get(name, 0) - alone.get(name, 0)) for p in profiles.values())

    listed = sorted(names, key=differs, reverse=True)[:LISTED]
    lines = {
        "clock, MHz": {label: p.megahertz for label, p in profiles.items()},
        "a step": {label: p.length for label, p in profiles.items()},
        "at rest": {label: p.rest for label, p in profiles.items()},
        **{n: {label: p.kernels.get(n, 0.0) for label, p in profiles.items()} for n in listed},
    }
    return [
        {"case": case.name, "ms a step": name, **{k: round(v, 3) for k, v in values.items()}}
        for name, values in lines.items()
    ]


def main() -> None:
    """Record, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="length of each run")
    parser.add_argument("--cases", type=int, nargs="+", default=[4, 2])
    parser.add_argument("--data", type=Path, help="folder of images; synthetic noise without it")
    parser.add_argument("--out", type=Path, default=RESULTS / "step_profile.csv")
    arguments = parser.parse_args()
    environment = describe(torch.device("cuda"))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        stock = Stock(Path(folder), arguments.data, 0)
        for number in arguments.cases:
            case = cases()[number]
            config = case.config.model_copy(update={"minutes": arguments.minutes})
            alone = record_alone(config, stock)
            found = rows_of(case, profiles_of(alone, record_run(config, stock, (0.3, 0.9))))
            Console(width=WIDTH).print(table_of(found))
            rows += [row | environment for row in found]
            write_csv(arguments.out, rows)


if __name__ == "__main__":
    main()
