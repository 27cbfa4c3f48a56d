"""The parts of the comparison: which jobs answer which question."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accuracy.datasets import BUDGETS, Budget
from accuracy.jobs import MaskedNetwork, Network, PretrainJob, SegmentJob
from napari_affmae.engine.store.metadata import read_metadata, training_facts
from napari_affmae.engine.store.starting_weights import NOTHING, find_origin, is_starting_weights

Jobs = list[PretrainJob | SegmentJob]

LENGTHS = (100_000, 300_000, 1_000_000, 3_000_000)
RATES = (3e-4, 5e-4, 1e-3, 2e-3)
# Name, fields of the job, fields of its config.
ABLATIONS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "uniform masks": ({}, {"mask": "uniform"}),
    "mask ratio .35": ({}, {"mask_ratio": 0.35}),
    "mask ratio .75": ({}, {"mask_ratio": 0.75}),
    "merging .25": ({"merge_ratio": 0.25}, {}),
    "merging .5": ({"merge_ratio": 0.5}, {}),
    "no deep supervision": ({"deep_supervision": False}, {}),
}


@dataclass(frozen=True)
class Options:
    """What a plan is made for.

    Attributes
    ----------
    sets : tuple of str
        Labelled sets.
    budgets : tuple of str
        Label budgets.
    seeds : tuple of int
        Of training for segmentation; pretraining has seed 0.
    network : str
        The AFFMAE.
    vit : str
        The ViT-MAE.
    minutes : float
        Of pretraining.
    start : str or None
        What to start from instead of pretraining: weights that come with the program by
        their name, a pretrained run or model file, or "none", which leaves random weights
        alone.
    lengths : tuple of int
        Crops of the pretrainings of the length curve.
    rates : tuple of float
        Learning rates that are tried from random weights.
    random_rate : float or None
        Learning rate from random weights; None for that of the recipe.
    pretrain, finetune : dict
        Fields of the configs that differ from the recipe in all jobs.
    """

    sets: tuple[str, ...]
    budgets: tuple[Budget, ...] = BUDGETS
    seeds: tuple[int, ...] = (0,)
    network: MaskedNetwork = "affmae-small"
    vit: MaskedNetwork = "vit-small"
    minutes: float = 7.0
    start: str | None = None
    lengths: tuple[int, ...] = LENGTHS
    rates: tuple[float, ...] = RATES
    random_rate: float | None = None
    pretrain: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)

    def pretraining(
        self, network: MaskedNetwork, tag: str, settings: Mapping[str, Any], **fields: Any
    ) -> PretrainJob:
        """Describe a pretraining; `tag` tells it from others of the network."""
        name = _slug(f"{network} {tag}")
        settings = {**self.pretrain, **settings}
        return PretrainJob(name=name, network=network, sets=self.sets, settings=settings, **fields)

    def timed(self, network: MaskedNetwork) -> PretrainJob:
        """Describe the pretraining of a network by time."""
        return self.pretraining(network, f"{self.minutes:g} min", {"minutes": self.minutes})

    def segmentations(
        self, network: Network, method: str, rate: float | None = None, **fields: Any
    ) -> Iterator[SegmentJob]:
        """Describe a method's runs on all sets, budgets and seeds."""
        settings = {**self.finetune} if rate is None else {**self.finetune, "learning_rate": rate}
        for dataset in self.sets:
            for budget in self.budgets:
                for seed in self.seeds:
                    yield SegmentJob(
                        name=_name(method, dataset, budget, seed),
                        network=network,
                        method=method,
                        dataset=dataset,
                        budget=budget,
                        seed=seed,
                        settings=settings,
                        **fields,
                    )


def pretrained_and_random(options: Options) -> Jobs:
    """Train AFFMAE from pretrained weights and from random ones."""
    return [
        *([] if options.start else [options.timed(options.network)]),
        *options.segmentations(options.network, _random(options), options.random_rate),
        *_pretrained(options),
    ]


def vit(options: Options) -> Jobs:
    """Train a ViT-MAE with the same data, crops, masks and time."""
    pretraining = options.timed(options.vit)
    method = f"{options.vit} pretrained {options.minutes:g} min"
    return [pretraining, *options.segmentations(options.vit, method, start=pretraining.name)]


def unet(options: Options) -> Jobs:
    """Train DynUNet for as many steps, and for the GPU time of pretraining and fine-tuning."""
    plain = list(options.segmentations("dynunet", "dynunet"))
    if options.start is not None:
        return [*plain]
    pretraining, own = options.timed(options.network), _pretrained(options)
    return [pretraining, *own, *plain, *as_long(plain, pretraining, own)]


def as_long(
    plain: Sequence[SegmentJob], pretraining: PretrainJob, own: Sequence[SegmentJob]
) -> Iterator[SegmentJob]:
    """Give each of some jobs the GPU time of a pretraining and the fine-tuning after it.

    Parameters
    ----------
    plain : sequence of SegmentJob
        The jobs, which tell how long their own steps take.
    pretraining : PretrainJob
        The pretraining.
    own : sequence of SegmentJob
        The fine-tunings, one for each of `plain`.
    """
    for job, beside in zip(plain, own, strict=True):
        method = f"{job.network} as long as {beside.method}"
        yield job.model_copy(
            update={
                "name": _name(method, job.dataset, job.budget, job.seed),
                "method": method,
                "like": (pretraining.name, beside.name),
                "pace": job.name,
            }
        )


def forest(options: Options) -> Jobs:
    """Grow a random forest on pixel features."""
    return list(options.segmentations("forest", "random forest"))


def rates(options: Options) -> Jobs:
    """Try learning rates from random weights."""
    return [
        job
        for rate in options.rates
        for job in options.segmentations(
            options.network, f"{options.network} random rate {rate:g}", rate, variant=True
        )
    ]


def lengths(options: Options) -> Jobs:
    """Pretrain for several lengths, in crops."""
    jobs: Jobs = []
    batch = options.pretrain.get("batch", 64)
    for crops in options.lengths:
        tag = f"{crops / 1e6:g}M crops"
        pretraining = options.pretraining(options.network, tag, {"steps": max(1, crops // batch)})
        method = f"{options.network} pretrained {tag}"
        jobs += [
            pretraining,
            *options.segmentations(options.network, method, start=pretraining.name),
        ]
    return jobs


def ablations(options: Options) -> Jobs:
    """Pretrain in variants, beside the recipe of the same time."""
    jobs: Jobs = [options.timed(options.network), *_pretrained(options)]
    for name, (fields, settings) in ABLATIONS.items():
        tag = f"{options.minutes:g} min {name}"
        pretraining = options.pretraining(
            options.network, tag, {"minutes": options.minutes, **settings}, **fields
        )
        method = f"{options.network} pretrained {tag}"
        jobs += [
            pretraining,
            *options.segmentations(options.network, method, start=pretraining.name, variant=True),
        ]
    return jobs


PARTS: Mapping[str, Callable[[Options], Jobs]] = {
    "pretrained": pretrained_and_random,
    "vit": vit,
    "unet": unet,
    "forest": forest,
    "rates": rates,
    "lengths": lengths,
    "ablations": ablations,
}


def _pretrained(options: Options) -> list[SegmentJob]:
    if options.start == NOTHING:
        return []
    if options.start is not None:
        start = _found(options.start, options.network)
        method = f"{options.network} from {Path(start).name}"
        return list(options.segmentations(options.network, method, start=start))
    start = options.timed(options.network).name
    method = f"{options.network} pretrained {options.minutes:g} min"
    return list(options.segmentations(options.network, method, start=start))


def _found(start: str, network: MaskedNetwork) -> str:
    """Return the name or the whole path of what is started from, which is a network like this."""
    path = find_origin(start, network.partition("-")[2], 1).path
    if path is None:
        raise ValueError(
            f"no weights of {network} come with the program: name others to start from"
        )
    size = training_facts(read_metadata(path), path).preset
    if f"affmae-{size}" != network:
        raise ValueError(f"{start} is of the size {size}; choose --preset {size}, not {network}")
    return path.stem if is_starting_weights(path) else str(path.resolve())


def _random(options: Options) -> str:
    rate = options.random_rate
    return f"{options.network} random" + ("" if rate is None else f" rate {rate:g}")


def _name(method: str, dataset: str, budget: str, seed: int) -> str:
    return _slug(f"{dataset} {budget} {method} {seed}")


def _slug(text: str) -> str:
    return text.replace(" ", "-")
