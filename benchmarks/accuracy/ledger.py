"""The folder of a campaign: jobs, who works on them, results and failures.

::

    jobs.jsonl        a line a job, in the order in which they are taken
    results.jsonl     a line a finished job; a job with a line is never done again
    locks/            held, by the system's means, while a job is worked on
    tries/            how often a job was begun and not ended
    failed/           tracebacks of jobs, which are not tried again unless that is asked for
    runs/             run folders, of which pretrained models stay
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from accuracy.jobs import READ_JOB, PretrainJob, SegmentJob, model_of

AnyJob = PretrainJob | SegmentJob
MOST_TRIES = 3


@dataclass(frozen=True)
class View:
    """What a folder held at one moment.

    Attributes
    ----------
    jobs : Mapping
        All jobs by name, in their order.
    results : Mapping
        Results by name of the job.
    open : sequence of AnyJob
        What is left to do, and does not need a job that failed.
    ready : sequence of AnyJob
        Those of them whose needs are there.
    """

    jobs: Mapping[str, AnyJob]
    results: Mapping[str, dict[str, Any]]
    open: Sequence[AnyJob]
    ready: Sequence[AnyJob]


class Ledger:
    """Jobs and results in a folder that several processes share.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        for name in ("locks", "tries", "failed", "runs"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def add(self, jobs: Sequence[AnyJob]) -> None:
        """Put jobs behind those that are there already.

        Raises
        ------
        ValueError
            If there is another job of the same name.
        """
        with FileLock(self.folder / "locks" / "jobs.lock"):
            known = self.jobs()
            for job in jobs:
                if known.setdefault(job.name, job) != job:
                    raise ValueError(
                        f"{self.folder} has another job named {job.name}: "
                        f"{known[job.name]!r}, not {job!r}; take another folder"
                    )
            lines = [job.model_dump_json() for job in known.values()]
            beside = self.folder / "jobs.new"
            beside.write_text("".join(line + "\n" for line in lines))
            beside.replace(self.folder / "jobs.jsonl")

    def jobs(self) -> dict[str, AnyJob]:
        """Read all jobs, by name."""
        path = self.folder / "jobs.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        jobs = [READ_JOB.validate_json(line) for line in lines]
        return {job.name: job for job in jobs}

    def results(self) -> dict[str, dict[str, Any]]:
        """Read the results by name of the job; of two, the later one."""
        return {line["name"]: line for line in read_results(self.folder / "results.jsonl")}

    def know(self, path: Path) -> None:
        """Take in the results of an earlier campaign; its jobs are not done again."""
        known = self.results()
        for line in read_results(path):
            if line["name"] not in known:
                self._append(line)

    def failed(self) -> dict[str, str]:
        """Read why jobs failed, by their names."""
        return {path.stem: path.read_text() for path in (self.folder / "failed").glob("*.txt")}

    def look(self) -> View:
        """See what is done and what is left."""
        jobs, results, failed = self.jobs(), self.results(), self.failed()
        left = {name for name in jobs if name not in results}
        # A model that is still needed is made again where it is lost, as on another machine.
        left |= {
            start
            for name in left
            if (start := _pretraining(jobs[name])) and not model_of(self.runs, start).exists()
        }
        hopeless = set(failed)
        while more := {name for name in left - hopeless if hopeless.intersection(jobs[name].needs)}:
            hopeless |= more
        todo = [job for name, job in jobs.items() if name in left - hopeless]
        ready = [job for job in todo if not left.intersection(job.needs)]
        return View(jobs, results, todo, ready)

    @contextmanager
    def claim(
        self, wanted: Callable[[AnyJob], bool], patience: float = 0.0
    ) -> Iterator[AnyJob | None]:
        """Hold the first job that is ready, wanted, and held by nobody else; None if none is.

        Others who look whether a job is held hold it for a moment themselves;
        `patience` is how many seconds each job is waited for.
        """
        for job in self.look().ready:
            if not wanted(job):
                continue
            with self._holding(job, patience) as held:
                # It may have been done since the look.
                if held and any(job.name == other.name for other in self.look().ready):
                    yield job
                    return
        yield None

    def is_held(self, job: AnyJob) -> bool:
        """Whether somebody works on a job."""
        with self._holding(job) as held:
            return not held

    @contextmanager
    def _holding(self, job: AnyJob, patience: float = 0.0) -> Iterator[bool]:
        with holding(self.folder / "locks" / f"{job.name}.lock", patience) as held:
            yield held

    def begin(self, job: AnyJob) -> bool:
        """Note that a claimed job is begun; False where it ended too many processes."""
        tries = self.folder / "tries" / job.name
        begun = tries.stat().st_size if tries.exists() else 0
        if begun >= MOST_TRIES:
            self.fail(job, f"the process that worked on it died {begun} times")
            return False
        tries.write_text("x" * (begun + 1))
        return True

    def interrupt(self, job: AnyJob) -> None:
        """Note that a job was stopped on purpose, and can go on."""
        (self.folder / "tries" / job.name).unlink(missing_ok=True)

    def fail(self, job: AnyJob, why: str) -> None:
        """Note that a job cannot be done."""
        self.interrupt(job)
        (self.folder / "failed" / f"{job.name}.txt").write_text(why + "\n")

    def forgive(self) -> None:
        """Let failed jobs be tried again."""
        for path in (self.folder / "failed").glob("*.txt"):
            path.unlink()

    def finish(self, job: AnyJob, result: Mapping[str, Any]) -> None:
        """Add the result of a job."""
        self._append({"name": job.name, **result})
        self.interrupt(job)

    def _append(self, result: Mapping[str, Any]) -> None:
        line = json.dumps(result) + "\n"
        path = self.folder / "results.jsonl"
        with FileLock(self.folder / "locks" / "results.lock"), path.open("a+b") as file:
            if file.tell() and not _ends_with_newline(path):
                file.write(b"\n")
            file.write(line.encode())


@contextmanager
def holding(path: Path, patience: float = 0.0) -> Iterator[bool]:
    """Hold a lock file for a block; gives whether nobody else holds it.

    Parameters
    ----------
    path : Path
        The file.
    patience : float
        Seconds to wait for it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the results of a campaign from its file; lines that were cut short do not count."""
    results = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            results.append(json.loads(line))
        except ValueError:
            continue
    return results


def _pretraining(job: AnyJob) -> str | None:
    return job.pretraining if isinstance(job, SegmentJob) else None


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
