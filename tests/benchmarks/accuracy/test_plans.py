"""Which jobs the parts have, and with which settings."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from accuracy.evidence import evidence, parted, stages
from accuracy.jobs import READ_JOB, PretrainJob, SegmentJob
from accuracy.ledger import read_results
from accuracy.plans import ABLATIONS, PARTS, Options
from environment import RESULTS

from napari_affmae.data import default_classes
from napari_affmae.engine.store.starting_weights import starting_weights

CLASSES = default_classes([0, 1])
OPTIONS = Options(sets=("tem_axon", "sem_axon", "fib25_membrane"))


def segmentations(part: str, options: Options = OPTIONS) -> list[SegmentJob]:
    return [job for job in PARTS[part](options) if isinstance(job, SegmentJob)]


def pretrainings(part: str, options: Options = OPTIONS) -> list[PretrainJob]:
    return [job for job in PARTS[part](options) if isinstance(job, PretrainJob)]


@pytest.mark.parametrize("part", PARTS)
def test_plans_hold_together(part: str) -> None:
    jobs = PARTS[part](OPTIONS)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    for job in jobs:
        assert set(job.needs) <= set(names)
        results = {name: {"gpu_seconds": 2.0, "steps": 10} for name in job.needs}
        if isinstance(job, PretrainJob):
            job.config("cpu")
        elif job.family != "forest":
            job.config("cpu", CLASSES, results)


def test_all_parts_agree_on_jobs_of_the_same_name() -> None:
    jobs = {}
    for plan in PARTS.values():
        for job in plan(OPTIONS):
            assert jobs.setdefault(job.name, job) == job


def test_one_pretraining_serves_all_sets_and_budgets() -> None:
    (pretraining,) = pretrainings("pretrained")
    config = pretraining.config("cuda")
    assert (config.minutes, config.batch, config.crop, config.mask) == (7, 64, 256, "perlin")
    assert config.learning_rate == 5e-4
    jobs = segmentations("pretrained")
    assert len(jobs) == 18
    assert [job.start for job in jobs] == [None] * 9 + [pretraining.name] * 9


def test_the_recipe_of_fine_tuning() -> None:
    config = segmentations("pretrained")[-1].config("cuda", CLASSES, {})
    assert (config.steps, config.batch, config.validation_steps) == (1200, 16, 200)
    assert (config.learning_rate, config.layer_decay, config.betas) == (1e-3, 0.8, (0.9, 0.95))
    assert (config.augmentation.affine, config.augmentation.elastic) == (0.5, 0.3)
    vit = segmentations("vit")[0].config("cuda", CLASSES, {})
    assert (vit.learning_rate, vit.layer_decay) == (5e-4, 0.75)


def test_settings_reach_all_jobs_and_rates_those_from_random_weights() -> None:
    options = replace(OPTIONS, random_rate=2e-3, finetune={"steps": 60}, pretrain={"crop": 128})
    assert pretrainings("pretrained", options)[0].config("cpu").crop == 128
    configs = [job.config("cpu", CLASSES, {}) for job in segmentations("pretrained", options)]
    assert {config.steps for config in configs} == {60}
    assert [config.learning_rate for config in configs] == [2e-3] * 9 + [1e-3] * 9


def test_dynunet_takes_the_time_of_pretraining_and_fine_tuning() -> None:
    job = segmentations("unet")[-1]
    pretraining, own = job.like
    results = {
        pretraining: {"gpu_seconds": 420.0},
        own: {"gpu_seconds": 15.0},
        job.pace: {"gpu_seconds": 20.0, "steps": 1200},
    }
    config = job.config("cuda", CLASSES, results)
    assert config.steps == 26_100
    assert config.validation_steps == 4350


def test_lengths_are_counted_in_crops() -> None:
    steps = [job.config("cuda").steps for job in pretrainings("lengths")]
    assert steps == [1562, 4687, 15_625, 46_875]


def test_ablations_differ_from_the_recipe_in_one_thing() -> None:
    recipe, *variants = pretrainings("ablations")
    assert len(variants) == len(ABLATIONS)
    for job in variants:
        before = {**recipe.model_dump(), **recipe.settings, "mask": "perlin", "mask_ratio": 0.5}
        now = {**before, **job.model_dump(), **job.settings}
        assert sum(before[key] != now[key] for key in now.keys() - {"name", "settings"}) == 1
    assert all(job.variant for job in segmentations("ablations")[9:])


def test_a_given_model_takes_the_place_of_pretraining(tmp_path: Path) -> None:
    model = tmp_path / "mine.safetensors"
    shutil.copy(starting_weights()["em-small"], model)
    for start, method in ((str(model), "mine.safetensors"), ("em-small", "em-small")):
        options = replace(OPTIONS, start=start)
        for part in ("pretrained", "unet"):
            assert not pretrainings(part, options)
        job = segmentations("pretrained", options)[-1]
        assert (job.start, job.method) == (start, f"affmae-small from {method}")
        assert job.from_outside
        assert not job.needs
    with pytest.raises(ValueError, match="em-small is of the size small"):
        PARTS["pretrained"](replace(options, network="affmae-nano"))


def test_none_leaves_random_weights_alone() -> None:
    jobs = PARTS["pretrained"](replace(OPTIONS, start="none"))
    assert [job.method for job in jobs] == ["affmae-small random"] * 9


def test_the_evidence_goes_on_from_what_is_published() -> None:
    planned = {job.name: job for job in evidence(replace(OPTIONS, minutes=2.0))}
    known = read_results(RESULTS / "accuracy.jsonl")
    assert len(known) >= 27
    assert all(READ_JOB.validate_python(line["job"]) == planned[line["name"]] for line in known)


def test_the_evidence_holds_together_in_its_order() -> None:
    found = stages(OPTIONS)
    jobs = {job.name: job for stage in found.values() for job in stage}
    seen: set[str] = set()
    for job in jobs.values():
        assert set(job.needs) <= seen, job.name
        seen.add(job.name)
    for stage in found.values():
        assert all(jobs[job.name] == job for job in stage)
    seeds = {(job.method, job.seed) for job in found["seeds"]}
    methods = ("nano random", "nano from em-nano", "small from em-small")
    assert seeds == {(f"affmae-{name}", seed) for name in methods for seed in range(3)}
    assert [job.config("cuda").steps for job in parted(found["lengths"])[0]] == [1562, 4687, 15_625]
    (pretraining, *_), _ = parted(found["dynunet, all the time"])
    long = found["dynunet, all the time"][-1]
    assert pretraining.name == long.like[0] == "affmae-nano-0.3M-crops"
    assert not pretraining.is_timed
    assert parted(found["vit"])[0][0].is_timed


def test_without_monai_dynunet_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(job.family == "dynunet" for job in evidence(OPTIONS))
    monkeypatch.setattr("accuracy.evidence.find_spec", lambda _: None)
    assert not any(job.family == "dynunet" for job in evidence(OPTIONS))
