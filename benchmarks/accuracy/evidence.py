"""What `docs/evidence.md` rests on, in the order of what an hour of a GPU is best spent on."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec

from accuracy.jobs import RATES, MaskedNetwork, PretrainJob, SegmentJob
from accuracy.plans import (
    Jobs,
    Options,
    as_long,
    lengths,
    pretrained_and_random,
    rates,
    unet,
    vit,
)
from napari_affmae.engine.store.starting_weights import NOTHING

NANO: MaskedNetwork = "affmae-nano"
SMALL: MaskedNetwork = "affmae-small"
SEEDS = (0, 1, 2)
#: Where a rate of its own is looked for: the ends of what there may be of labels.
SWEPT = ("one", "all")
FASTER, SLOWER = 3.0, 0.3
LONGER = 4


def stages(options: Options) -> Mapping[str, Jobs]:
    """Plan the stages, that of the greatest worth first.

    Parameters
    ----------
    options : Options
        Sets, budgets, lengths, rates, minutes of pretraining by the clock and settings;
        networks, seeds and starts are those of the stages. The longest pretraining comes
        last, since it takes as much time as all others.
    """
    nano, small = (replace(options, network=name, seeds=(0,)) for name in (NANO, SMALL))
    ends = tuple(budget for budget in options.budgets if budget in SWEPT)
    others = tuple(rate for rate in nano.rates if rate != RATES["affmae"][0])
    *shorter, longest = options.lengths
    second = options.lengths[1:2]
    steps = nano.finetune.get("steps", 1200)
    return {
        "random small": pretrained_and_random(replace(small, start=NOTHING)),
        "seeds": [job for seed in SEEDS for job in _shipped(nano, small, seed)],
        "dynunet": unet(replace(nano, start=NOTHING)),
        "rates": rates(replace(nano, budgets=ends, rates=others)),
        "lengths": _models_first(lengths(replace(nano, lengths=tuple(shorter)))),
        "random small, more seeds": [
            job
            for seed in SEEDS[1:]
            for job in pretrained_and_random(replace(small, start=NOTHING, seeds=(seed,)))
        ],
        "vit": [*vit(small), *pretrained_and_random(small)],
        "dynunet, own rate and length": _tuned(replace(nano, budgets=ends), steps),
        "dynunet, all the time": _as_long(replace(nano, budgets=ends, lengths=second)),
        "longest": lengths(replace(nano, lengths=(longest,))),
    }


def evidence(options: Options) -> Jobs:
    """Do all that docs/evidence.md rests on, the most worth first."""
    found = {job.name: job for jobs in stages(options).values() for job in jobs}
    if find_spec("monai") is None:
        print("MONAI is not installed: DynUNet is left out")
        return [job for job in found.values() if job.family != "dynunet"]
    return list(found.values())


def parted(jobs: Jobs) -> tuple[list[PretrainJob], list[SegmentJob]]:
    """Part pretrainings from segmentations."""
    return (
        [job for job in jobs if isinstance(job, PretrainJob)],
        [job for job in jobs if isinstance(job, SegmentJob)],
    )


def _shipped(nano: Options, small: Options, seed: int) -> Jobs:
    """Compare what comes with the program with random weights."""
    return [
        *pretrained_and_random(replace(nano, start="em-nano", seeds=(seed,))),
        # Those of small from random weights are a stage of their own.
        *(
            job
            for job in pretrained_and_random(replace(small, start="em-small", seeds=(seed,)))
            if job.kind == "segment" and job.start is not None
        ),
    ]


def _models_first(jobs: Jobs) -> Jobs:
    """Put pretrainings first, so that no worker waits for one while others could be done."""
    pretrainings, segmentations = parted(jobs)
    return [*pretrainings, *segmentations]


def _tuned(options: Options, steps: int) -> Jobs:
    """Give DynUNet rates and a length other than the recipe's."""
    rate = RATES["dynunet"][0]
    longer = replace(options, finetune={**options.finetune, "steps": LONGER * steps})
    return [
        *(
            job
            for factor in (SLOWER, FASTER)
            for job in options.segmentations(
                "dynunet", f"dynunet rate {factor * rate:g}", factor * rate, variant=True
            )
        ),
        *longer.segmentations("dynunet", f"dynunet {LONGER * steps} steps"),
    ]


def _as_long(options: Options) -> Jobs:
    """Give DynUNet the GPU time of one pretraining by crops and the fine-tuning after it."""
    plain = list(options.segmentations("dynunet", "dynunet"))
    (pretraining,), own = parted(lengths(options))
    return [pretraining, *own, *plain, *as_long(plain, pretraining, own)]
