"""The steps that train a light head on samples of painted pixels."""

from collections.abc import Generator

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

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
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


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
    update = _Update(head)
    pace, clock = Pace(), Stopwatch()
    for step in range(1, steps + 1):
        clock.start()
        rate = config.learning_rate * (1 - (step - 1) / steps)
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=random)
        with store.working(), seeded(config.seed, Stream.DROPOUT, number + step, device):
            here = chosen.to(device)
            head.train()
            loss = head.loss(inputs[0][here], inputs[1][here], samples.classes[here])
            head.zero_grad(set_to_none=True)
            loss.backward()
            update(rate)
            head.eval()
        clock.stop()
        pace.add(clock.elapsed)
        clock = Stopwatch()
        seconds = pace.seconds_per_step or 0.0
        speed = BATCH / seconds if seconds else 0.0
        yield StepDone(step, steps, float(loss.detach()), rate, speed, seconds * (steps - step))


class _Update:
    """AdamW for a head, by torch's function of that name.

    Its class imports torch's compiler when it is first used: the first prediction would come a
    second later, and the garbage collector have half as many objects more to look at.

    Parameters
    ----------
    head : nn.Module
        All its parameters have gradients when this is called.
    """

    def __init__(self, head: nn.Module) -> None:
        self._parameters: list[Tensor] = list(head.parameters())
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [torch.zeros(()) for _ in self._parameters]

    @torch.no_grad()
    def __call__(self, rate: float) -> None:
        gradients: list[Tensor] = [p.grad for p in self._parameters if p.grad is not None]
        adamw(
            self._parameters, gradients, self._means, self._squares, [], self._steps,
            amsgrad=False, beta1=_BETAS[0], beta2=_BETAS[1], lr=rate,
            weight_decay=_WEIGHT_DECAY, eps=_EPSILON, maximize=False,
        )  # fmt: skip
