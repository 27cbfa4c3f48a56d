"""The command line of the comparison."""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from accuracy.crew import CPU, employ
from accuracy.datasets import BUDGETS, labelled_sets
from accuracy.evidence import evidence
from accuracy.execution import Site
from accuracy.ledger import Ledger
from accuracy.plans import LENGTHS, PARTS, RATES, Options
from accuracy.worker import work

INTERRUPTED = 130

PLANS = {**PARTS, "evidence": evidence}

DESCRIPTION = """Score segmentation of real images: methods, label budgets, seeds, and their cost.

A part plans its jobs in the folder --runs, has them done, and writes the report.
Stopped at any time, it goes on where it was when it is started again.
"""


def main(given: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Parameters
    ----------
    given : sequence of str, optional
        Instead of the program's arguments.

    Returns
    -------
    int
        Exit status: 1 where jobs are left.
    """
    arguments = _parser().parse_args(given)
    if arguments.command == "worker":
        return _work(arguments)
    done = True
    ledger = Ledger(arguments.runs)
    for path in arguments.known:
        ledger.know(path)
    if arguments.command != "report":
        if arguments.command != "run":
            names = list(PARTS) if arguments.command == "everything" else [arguments.command]
            options = _options(arguments)
            ledger.add([job for name in names for job in PLANS[name](options)])
        if arguments.retry:
            ledger.forgive()
        deadline = math.inf
        if arguments.stop_after is not None:
            deadline = time.time() + 60 * arguments.stop_after
        if not arguments.plan_only:
            try:
                done = employ(
                    ledger,
                    arguments.data,
                    arguments.pretrain_on,
                    arguments.gpus,
                    arguments.workers,
                    deadline,
                )
            except KeyboardInterrupt:
                print("interrupted; the same command goes on from here")
                return INTERRUPTED
    _report(arguments)
    return 0 if done else 1


def _report(arguments: argparse.Namespace) -> None:
    # Machines that only train need no matplotlib.
    from accuracy.curves import draw_curves  # noqa: PLC0415
    from accuracy.page import write_page  # noqa: PLC0415
    from accuracy.report import write_report  # noqa: PLC0415

    ledger = Ledger(arguments.runs)
    found = ledger.results()
    if not found:
        print("no job is done yet: there is nothing to report")
        return
    # Methods in the order of the plan, whichever was done first.
    order = [*(name for name in ledger.jobs() if name in found), *found]
    results = [found[name] for name in dict.fromkeys(order)]
    out = arguments.out or arguments.runs / "report"
    write_report(results, out / "accuracy.md")
    paths = draw_curves(results, out)
    print(f"wrote {out / 'accuracy.md'}, {', '.join(map(str, paths))}")
    if arguments.into is not None:
        write_page(results, paths, arguments.into)
        print(f"wrote the scores into {arguments.into}")


def _work(arguments: argparse.Namespace) -> int:
    (gpu,) = arguments.gpus
    ledger = Ledger(arguments.runs)
    site = Site(
        runs=ledger.runs,
        data=arguments.data,
        extra=tuple(arguments.pretrain_on),
        device=CPU if gpu == CPU else "cuda",
        workers=arguments.workers,
        deadline=arguments.until,
    )
    try:
        return work(ledger, site, gpu, arguments.slot)
    except KeyboardInterrupt:
        return INTERRUPTED


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        sets=tuple(arguments.sets or labelled_sets(arguments.data)),
        budgets=tuple(arguments.budgets),
        seeds=tuple(arguments.seeds),
        network=f"affmae-{arguments.preset}",
        minutes=arguments.minutes,
        start=arguments.start,
        lengths=tuple(arguments.crops),
        rates=tuple(arguments.rates),
        random_rate=arguments.random_rate,
        pretrain=arguments.pretrain,
        finetune=arguments.finetune,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="accuracy",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, plan in PLANS.items():
        _add_plan(commands.add_parser(name, help=plan.__doc__))
    _add_plan(commands.add_parser("everything", help="All of these."))
    _add_crew(commands.add_parser("run", help="Go on with what is planned."))
    _add_runs(commands.add_parser("report", help="Write tables and curves of what is done."))
    worker = commands.add_parser("worker")
    _add_crew(worker)
    worker.add_argument("--slot", type=int, required=True)
    worker.add_argument("--until", type=float, required=True)
    return parser


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs", type=Path, required=True, help="folder of jobs, results and run folders"
    )
    add = parser.add_argument
    add("--out", type=Path, help="folder of the report; RUNS/report by default")
    add("--into", type=_file, metavar="PAGE", help="page that gets the scores and pictures, too")
    add(
        "--known",
        type=_file,
        nargs="*",
        default=[],
        metavar="FILE",
        help="results of earlier campaigns, which are not measured again",
    )


def _add_crew(parser: argparse.ArgumentParser) -> None:
    _add_runs(parser)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the labelled sets and of `pretrain`")
    add("--pretrain-on", type=Path, nargs="*", default=[], help="more images to pretrain on")
    add("--gpus", nargs="+", default=["0"], help="numbers of GPUs, or cpu")
    add("--workers", type=int, default=4, help="runs side by side on each GPU")
    add("--stop-after", type=float, metavar="MINUTES", help="stop then, to be gone on with")
    add("--retry", action="store_true", help="try jobs again that failed")
    add("--plan-only", action="store_true", help="write the jobs down, do none")


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _add_crew(parser)
    add = parser.add_argument
    add("--sets", nargs="+", help="names of labelled sets; all in --data by default")
    add("--budgets", nargs="+", choices=BUDGETS, default=list(BUDGETS), help="labelled planes")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--preset", choices=("nano", "small", "base"), default="small", help="of the AFFMAE")
    add("--minutes", type=float, default=7.0, help="of pretraining")
    add(
        "--start",
        help="instead of pretraining: weights that come with the program by name (em-nano), a "
        "pretrained run, a model file, or none (random weights alone)",
    )
    add("--crops", type=int, nargs="+", default=list(LENGTHS), help="of the length curve")
    add("--rates", type=float, nargs="+", default=list(RATES), help="to try from random weights")
    add("--random-rate", type=float, help="learning rate from random weights")
    for task in ("pretrain", "finetune"):
        add(
            f"--{task}",
            type=json.loads,
            default={},
            metavar="SETTINGS",
            help=f"fields of {task.capitalize()}Config that differ from the recipe, as JSON",
        )
