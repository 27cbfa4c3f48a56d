"""The workers of a campaign: several processes on each GPU, started anew where they die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from accuracy.ledger import Ledger
from accuracy.worker import FAILED

PROGRAM = Path(__file__).parent
CPU = "cpu"
MOST_DEATHS = 5
POLL_SECONDS = 0.2

Key = tuple[str, int]


def employ(
    ledger: Ledger,
    data: Path,
    extra: Sequence[Path],
    gpus: Sequence[str],
    workers: int,
    deadline: float,
) -> bool:
    """Have the jobs of a campaign done.

    Parameters
    ----------
    ledger : Ledger
        The campaign.
    data, extra
        See `Site`.
    gpus : sequence of str
        Values of ``CUDA_VISIBLE_DEVICES``; ``"cpu"`` for none.
    workers : int
        Processes on each.
    deadline : float
        When to stop, in seconds of the system's clock.

    Returns
    -------
    bool
        Whether all jobs are done.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threads = max(1, (os.cpu_count() or 1) // (len(gpus) * workers))

    def start(key: Key) -> subprocess.Popen[bytes]:
        gpu, slot = key
        command = [sys.executable, str(PROGRAM), "worker", "--runs", str(ledger.folder)]
        command += ["--data", str(data), "--pretrain-on", *map(str, extra)]
        command += ["--gpus", gpu, "--slot", str(slot), "--workers", str(workers)]
        command += ["--until", str(deadline)]
        visible = "" if gpu == CPU else gpu
        environment = {"CUDA_VISIBLE_DEVICES": visible, "OMP_NUM_THREADS": str(threads)}
        # In a session of their own: an interrupt from the keyboard is to reach them once.
        return subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True)

    running = {(gpu, slot): start((gpu, slot)) for gpu in gpus for slot in range(workers)}
    deaths = dict.fromkeys(running, 0)
    try:
        while running:
            for key, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[key]
                deaths[key] += code not in {0, FAILED}
                if code and deaths[key] < MOST_DEATHS and time.time() < deadline:
                    running[key] = start(key)
            time.sleep(POLL_SECONDS)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    left = set(ledger.jobs()) - set(ledger.results())
    failed = ledger.failed()
    print(f"{len(left)} jobs are left, of which {len(failed)} failed: {', '.join(failed)}")
    return not left
