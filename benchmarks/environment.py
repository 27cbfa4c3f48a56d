"""What a result was measured on, and where it is written."""

import csv
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
# Of printed tables, characters: they are Markdown, to be pasted whole.
WIDTH = 160
COMMIT = "BENCHMARK_COMMIT"


def describe(device: torch.device) -> dict[str, str]:
    """Name the machine, the versions and the commit.

    Parameters
    ----------
    device : torch.device
        Where the networks run.
    """
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "device": gpu or _cpu_name(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with equal keys as a table.

    Parameters
    ----------
    path : Path
        Replaced where it exists.
    rows : sequence of mappings
        At least one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _cpu_name() -> str:
    """Read the processor's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Name the commit, with a plus where files under version control were changed.

    On a machine that has the files without their repository, who starts the script
    may name it in the environment; else it is unknown.
    """
    here = Path(__file__).parent
    if COMMIT in os.environ:
        return os.environ[COMMIT]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        head = git("rev-parse", "--short", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../src", "../kernels")
    return head + ("+" if changed else "")
