"""The commands of ``python benchmarks/reliability``."""

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from reliability import kills, readers, records


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 1 where there is a fault."""
    parser = argparse.ArgumentParser(prog="python benchmarks/reliability", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, count in (("kills", 200), ("readers", 2000), ("records", 300)):
        command = commands.add_parser(name)
        command.add_argument("--count", type=int, default=count)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument(
            "--only",
            default="",
            help="tasks whose names hold this, or formats in whose names this expression is found",
        )
    given = parser.parse_args(words)
    started = time.monotonic()
    faults = {"kills": _kills, "readers": _readers, "records": _records}[given.command](given)
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults, {time.monotonic() - started:.0f} s")
    return 1 if faults else 0


def _kills(given: argparse.Namespace) -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        tallies = kills.hunt(Path(place), given.count, given.seed, only=given.only)
    print(kills.table(tallies))
    return [fault for tally in tallies for fault in tally.faults]


def _readers(given: argparse.Namespace) -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        for kind, path in readers.written(Path(place)):
            if isinstance(path, str):
                print(f"{kind.name} is left out: {path}")
    trials = readers.fuzz(given.count, given.seed, only=given.only)
    print(readers.table(trials))
    return [f"{t.format}, seed {t.seed}: {t.words}" for t in trials if t.outcome == "fault"]


def _records(given: argparse.Namespace) -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        run = kills.finished_run(Path(place))
        with redirect_stdout(io.StringIO()):  # the cards of what can be read
            return records.hunt(run, given.count, given.seed)
