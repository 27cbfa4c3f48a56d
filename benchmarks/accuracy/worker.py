"""One process that takes jobs from a campaign's folder until none is left."""

import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from accuracy.execution import Site, TimeIsUpError, carry_out
from accuracy.jobs import PretrainJob
from accuracy.ledger import AnyJob, Ledger, holding

# After a failed job the process, whose GPU state may be broken, makes way for a new one.
FAILED = 75
WAIT_SECONDS = 1.0
# Others hold a lock for a moment only to see whether it is held.
PATIENCE = 0.2


def work(ledger: Ledger, site: Site, gpu: str, slot: int) -> int:
    """Take jobs until none is left or the time is over.

    Parameters
    ----------
    ledger : Ledger
        The campaign.
    site : Site
        Where its jobs are carried out.
    gpu : str
        Name of the device, for the workers that share it.
    slot : int
        Number of this worker among them.

    Returns
    -------
    int
        0, or `FAILED`.
    """
    # So that being ended leaves a checkpoint, as an interrupt from the keyboard does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    label = f"{gpu}.{slot}"
    while time.time() < site.deadline:
        view = ledger.look()
        if not view.open:
            break
        with _turn(ledger, gpu) as job:
            if job is not None and ledger.begin(job) and not _attempt(job, ledger, site, label):
                return FAILED
        if job is None:
            time.sleep(WAIT_SECONDS)
    return 0


def _attempt(job: AnyJob, ledger: Ledger, site: Site, label: str) -> bool:
    """Do a claimed job; False if it failed."""
    started = time.perf_counter()
    _say(label, f"begins {job.name}")
    try:
        result = carry_out(job, site, ledger.results())
    except (TimeIsUpError, KeyboardInterrupt) as stop:
        ledger.interrupt(job)
        _say(label, f"interrupts {job.name}")
        if isinstance(stop, KeyboardInterrupt):
            raise
        return True
    except Exception:  # noqa: BLE001 - whatever it is, the other jobs go on
        ledger.fail(job, traceback.format_exc())
        _say(label, f"FAILED {job.name}:\n{traceback.format_exc()}")
        return False
    ledger.finish(job, result)
    seconds = time.perf_counter() - started
    found = f", mean IoU {result['mean_iou']:.3f}" if "mean_iou" in result else ""
    _say(label, f"finished {job.name} in {seconds:.0f} s{found}")
    return True


@contextmanager
def _turn(ledger: Ledger, gpu: str) -> Iterator[AnyJob | None]:
    """Claim the first job that nobody works on, if there is one.

    A pretraining by the clock gets the GPU for itself: meanwhile nobody else takes a job there.
    """
    with ExitStack() as held, ExitStack() as briefly:
        if not briefly.enter_context(
            holding(ledger.folder / "locks" / f"gpu_{gpu}.lock", PATIENCE)
        ):
            yield None
            return
        job = held.enter_context(ledger.claim(lambda _: True, PATIENCE))
        if isinstance(job, PretrainJob) and job.is_timed:
            held.push(briefly.pop_all())
        briefly.close()
        yield job


def _say(label: str, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {label} {what}", flush=True)
