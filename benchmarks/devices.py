"""How much faster several devices train than one: crops a second of whole runs, and their ratio.

The images are noise in memory. The batch is the whole batch of a step, once the same for all
numbers of devices, as in a run that is only moved, and once the same on each device.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from environment import RESULTS, WIDTH, describe, write_csv
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from napari_affmae.config import PretrainConfig
from napari_affmae.data import open_source
from napari_affmae.engine import joined, pretrain
from napari_affmae.engine.events import StepDone

PLANES, SIDE = 64, 1024


def main() -> None:
    """Measure one and several devices, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    there = torch.cuda.device_count()
    parser.add_argument("--devices", type=int, default=there or 2, help="how many, beside one")
    parser.add_argument("--device", default="cuda" if there else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16, help="crops of a step, on all devices")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each run")
    parser.add_argument("--wanted", type=float, default=1.85, help="ratio at the equal batch")
    parser.add_argument("--out", type=Path, default=RESULTS / "devices.csv")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(arguments)
        return
    several = arguments.devices
    cases = [(1, arguments.batch), (several, arguments.batch), (several, several * arguments.batch)]
    rows: list[dict[str, object]] = []
    for devices, batch in cases:
        speed = measure(arguments, devices, batch)
        ratio = speed / float(str(rows[0]["crops/s"])) if rows else 1.0
        rows.append(
            {
                "devices": devices,
                "batch": batch,
                "crops/s": round(speed, 2),
                "ratio": round(ratio, 3),
                "wanted": arguments.wanted if len(rows) == 1 else "",
                "preset": arguments.preset,
                "crop": arguments.crop,
            }
        )
        print(rows[-1], flush=True)
    environment = describe(torch.device(arguments.device))
    write_csv(arguments.out, [row | environment for row in rows])
    Console(width=WIDTH).print(table_of(rows))


def measure(arguments: argparse.Namespace, devices: int, batch: int) -> float:
    """Make a run in processes of its own; return its crops a second."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "speed.json"
        options = [f"--{name}={getattr(arguments, name)}" for name in ("device", "preset", "crop")]
        subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *(f"--nproc-per-node={devices}", __file__, *options),
                *(f"--batch={batch}", f"--seconds={arguments.seconds}", f"--worker={result}"),
            ],
            env={"OMP_NUM_THREADS": str(torch.get_num_threads()), **os.environ},
            check=True,
        )
        return float(json.loads(result.read_text()))


def work(arguments: argparse.Namespace) -> None:
    """Be one process of a run; the first one writes down how fast it was."""
    stack = np.random.default_rng(0).integers(0, 256, (PLANES, SIDE, SIDE), dtype=np.uint8)
    source = open_source(stack, axes="ZYX", name="noise")
    config = PretrainConfig(
        preset=arguments.preset,
        crop=arguments.crop,
        batch=arguments.batch,
        minutes=arguments.seconds / 60,
        device=arguments.device,
    )
    steps, started, last = -1, 0.0, 0.0
    with joined() as team:
        for event in pretrain([source], config, arguments.worker.parent / "run", team=team):
            if isinstance(event, StepDone):
                steps, last = steps + 1, time.perf_counter()
                # The first one records and compiles.
                started = started or last
        if team.leads:
            speed = steps * arguments.batch / (last - started)
            arguments.worker.write_text(json.dumps(speed))


def table_of(rows: Sequence[dict[str, object]]) -> Table:
    """Lay the rows out as a Markdown table."""
    table = Table(box=MARKDOWN)
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


if __name__ == "__main__":
    main()
