"""What events mean, in the user's words: the command line and the docks say the same."""

from napari_affmae.engine import events as ev


def duration(seconds: float) -> str:
    """Say a number of seconds as people do: ``45 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def gigabytes(count: int) -> str:
    """Say a number of bytes: ``0.31 GB``, ``3.1 GB``, ``24 GB``."""
    size = count / 2**30
    return f"{size:.{2 if size < 1 else 1 if size < 10 else 0}f} GB"


def started(event: ev.RunStarted) -> str:
    """Say where a run computes, and how much at once."""
    parts = (
        f" ({event.batch // event.micro_batch} parts)" if event.micro_batch < event.batch else ""
    )
    at = f", going on after step {event.step}" if event.step else ""
    return (
        f"device: {event.device}; precision: {event.precision}; backend: {event.backend}; "
        f"{event.parameters / 1e6:.1f} M parameters; batch: {event.batch}{parts}{at}"
    )


def pool(event: ev.PoolFilled) -> str:
    """Say how much of the images is there."""
    of = "" if event.held >= event.total else f" of {gigabytes(event.total)}"
    return f"{gigabytes(event.held)}{of} of images in memory"


def halved(event: ev.MicroBatchHalved) -> str:
    """Say how a run goes on after it ran out of memory."""
    return (
        f"out of memory at step {event.step}; going on with "
        f"{event.accumulate} x {event.micro_batch} images a step"
    )


def step(event: ev.StepDone) -> str:
    """Say how a run is doing after a step."""
    speed = f"{event.images_per_second:.3g} images/s"
    return f"loss {event.loss:.4f}  {speed}{_left(event.seconds_left)}"


def tile(event: ev.TileDone) -> str:
    """Say how far a plane is."""
    tile = f"tile {event.done} of {event.total} of plane {event.plane + 1}"
    return f"{tile}{_left(event.seconds_left)}"


def tiles(event: ev.TilesDone) -> str:
    """Say how long a volume will take."""
    return f"tiles{_left(event.seconds_left)}"


def objects(event: ev.ObjectsProgress) -> str:
    """Say what a search for objects does: ``finding, 4 min left``."""
    return f"{event.doing}{_left(event.seconds_left)}"


def plane(event: ev.TileDone, planes: int) -> str:
    """Say how far a stack is: ``plane 31 of 70, 4 min left``."""
    if planes == 1:
        return tile(event)
    return f"plane {event.plane + 1} of {planes}{_and_left(event.seconds_left)}"


def planes(done: int, planes: int, seconds_left: float | None) -> str:
    """Say how far a stack is of which planes are computed in any order."""
    return f"{done} of {planes} planes done{_and_left(seconds_left)}"


def _and_left(seconds: float | None) -> str:
    return "" if seconds is None else f", {duration(seconds)} left"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"  {duration(seconds)} left"


def validated(event: ev.Validated) -> str:
    """Say what a validation measured."""
    scores = ""
    if event.mean_iou is not None and event.mean_dice is not None:
        scores = f", mIoU {event.mean_iou:.3f}, mDice {event.mean_dice:.3f}"
    if event.probe is not None:
        scores += f", probe {event.probe:.3f}"
    if event.ranks:
        scores += f", effective rank {'/'.join(f'{rank:.0f}' for rank in event.ranks)}"
    best = ", the best so far" if event.best else ""
    when = f"step {event.step}" if event.step else "before the first step"
    return f"{when}: validation loss {event.loss:.4f}{scores}{best}"


def describe_plan(plan: ev.PlanMeasured) -> str:
    """Say what a run will take, in one sentence.

    Parameters
    ----------
    plan : PlanMeasured
        From `measure_plan`.

    Returns
    -------
    str
        For instance ``"NVIDIA RTX 4090, 24 GB, bf16, Triton kernels: 0.21 s a step,
        3.1 GB of 24 GB, 1,000 steps (64,000 crops) in about 4 min"``.
    """
    seconds = plan.seconds_per_step
    pace = f"{seconds:.{2 if seconds < 1 else 1 if seconds < 10 else 0}f} s a step"
    if plan.micro_batch < plan.batch:
        pace += f" (of {-(-plan.batch // plan.micro_batch)} parts)"
    parts = [pace]
    if plan.memory is not None:
        of = "" if plan.memory_available is None else f" of {gigabytes(plan.memory_available)}"
        parts.append(gigabytes(plan.memory) + of)
    if plan.total_steps is not None and plan.total_seconds is not None:
        crops = plan.total_steps * plan.batch
        length = f"{plan.total_steps:,} steps ({crops:,} crops)"
        parts.append(f"{length} in about {duration(plan.total_seconds)}")
    advice = "" if plan.advice is None else f". {plan.advice[0].upper()}{plan.advice[1:]}"
    return f"{plan.device}, {plan.precision}, {plan.backend}: {', '.join(parts)}{advice}"
