"""The steps that train a light head on samples of painted pixels."""

from collections.abc import Generator

import torch

from napari_affmae.config import QuickConfig
from napari_affmae.engine.compute.seeds import Stream, seeded
from napari_affmae.engine.compute.timing import Pace, Stopwatch
from napari_affmae.engine.events import StepDone
from napari_affmae.engine.quick.features import FeatureStore
from napari_affmae.engine.quick.strokes import Samples
from napari_affmae.model.quick.segmenter import QuickHead

#: Painted pixels of a step.
BATCH = 1024
_WEIGHT_DECAY = 0.01


def train_head(
    head: QuickHead,
    samples: Samples,
    config: QuickConfig,
    store: FeatureStore,
    random: torch.Generator,
    *,
    steps: int,
    number: int,
) -> Generator[StepDone, None, None]:
    """Train a head; closing the generator between steps leaves it as far as it is.

    Parameters
    ----------
    head : QuickHead
        Goes on from the weights that it has.
    samples : Samples
        At least one; rare classes are drawn more often than they occur, as in `class_weights`.
    config : QuickConfig
        Learning rate and seed.
    store : FeatureStore
        For its device.
    random : torch.Generator
        On the CPU; chooses the samples of each step.
    steps : int
        Number of steps, over which the learning rate falls to 0.
    number : int
        Number of the first step among all of this seed: dropout differs by it.

    Yields
    ------
    StepDone
        After each step.
    """
    counts = torch.bincount(samples.classes).cpu()
    weights = counts.clamp(min=1).float().rsqrt()[samples.classes.cpu()]
    inputs = head.standardise(samples.cells, samples.pixels)
    device = samples.classes.device
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY
    )
    pace, clock = Pace(), Stopwatch()
    for step in range(1, steps + 1):
        clock.start()
        rate = config.learning_rate * (1 - (step - 1) / steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=random)
        with store.working(), seeded(config.seed, Stream.DROPOUT, number + step, device):
            here = chosen.to(device)
            head.train()
            loss = head.loss(inputs[0][here], inputs[1][here], samples.classes[here])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            head.eval()
        clock.stop()
        pace.add(clock.elapsed)
        clock = Stopwatch()
        seconds = pace.seconds_per_step or 0.0
        speed = BATCH / seconds if seconds else 0.0
        yield StepDone(step, steps, float(loss.detach()), rate, speed, seconds * (steps - step))
