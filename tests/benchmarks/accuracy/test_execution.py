"""One job of each method, in seconds on a CPU, whole and in parts."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accuracy import execution
from accuracy.execution import Site, TimeIsUpError, carry_out
from accuracy.jobs import PretrainJob, SegmentJob, model_of
from safetensors.torch import load_file

from napari_affmae.engine import load_model
from napari_affmae.engine.store.starting_weights import starting_weights

SMALL = {"crop": 64, "batch": 2, "steps": 2}


@pytest.fixture(scope="module")
def site(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("runs"), data, (), "cpu", workers=2, deadline=math.inf)


def pretraining(network: str, **fields: Any) -> PretrainJob:
    return PretrainJob(
        **{"name": network, "network": network, "sets": ("cells",), "settings": SMALL, **fields}
    )


def segmentation(network: str, start: str | None = None, **fields: Any) -> SegmentJob:
    fixed = {"method": network, "dataset": "cells", "budget": "one", "settings": SMALL}
    name = f"segment-{network}-{start is not None}"
    return SegmentJob(**{"name": name, "network": network, "start": start, **fixed, **fields})


@pytest.fixture(scope="module")
def pretrained(site: Site) -> dict[str, dict[str, Any]]:
    names = ("affmae-nano", "vit-small")
    return {name: carry_out(pretraining(name), site, {}) for name in names}


@pytest.mark.parametrize(("network", "stages"), [("affmae-nano", 4), ("vit-small", 1)])
def test_pretraining(
    network: str, stages: int, pretrained: dict[str, dict[str, Any]], site: Site
) -> None:
    result = pretrained[network]
    # By steps, which the others on the device do not change.
    assert (result["steps"], result["crops"], result["workers"]) == (2, 4, 2)
    assert result["gpu_seconds"] == result["seconds"] / 2
    assert len(result["effective_rank"]["cells"]) == stages
    assert min(result["effective_rank"]["cells"]) > 1
    assert model_of(site.runs, network).exists()
    assert result["machine"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("network", "start"),
    [
        ("affmae-nano", "affmae-nano"),
        ("affmae-nano", None),
        ("vit-small", "vit-small"),
        ("dynunet", None),
        ("forest", None),
    ],
)
def test_segmentation(
    network: str, start: str | None, pretrained: dict[str, dict[str, Any]], site: Site
) -> None:
    if network == "forest":
        pytest.importorskip("sklearn", reason="scikit-learn is of the group benchmarks")
    result = carry_out(segmentation(network, start), site, pretrained)
    assert result["planes"] == 1
    assert set(result["iou"]) == {"background", "class 1", "class 2"}
    assert result["mean_iou"] == pytest.approx(sum(result["iou"].values()) / 3)
    assert result["job"]["start"] == start
    if network != "forest":
        assert [step for step, _ in result["validations"]] == [1, 2]
        assert result["mean_iou"] == max(score for _, score in result["validations"])
        assert result["gpu_seconds"] == result["seconds"] / 2
        assert not (site.runs / result["job"]["name"]).exists()


def test_a_segmentation_starts_from_its_pretraining(
    pretrained: dict[str, dict[str, Any]], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = {}
    make = execution.segmenter

    def noting(job: SegmentJob, *rest: Any) -> Any:
        built[job.network] = make(job, *rest)
        return built[job.network]

    def stop(*_: Any, **__: Any) -> None:
        raise TimeIsUpError

    monkeypatch.setattr(execution, "segmenter", noting)
    monkeypatch.setattr(execution, "_train", stop)
    for network in ("affmae-nano", "vit-small"):
        path = model_of(site.runs, network)
        names = {network: path, str(path): path}
        if network == "affmae-nano":
            names |= {"em-nano": starting_weights()["em-nano"]}
        for start, file in names.items():
            with pytest.raises(TimeIsUpError):
                carry_out(segmentation(network, start), site, pretrained)
            module, scales = built[network]
            (name, scale), *_ = scales.items()
            assert 0 < scale < 1
            own = dict(module.named_parameters())
            assert name in own
            stored = {k: v.float() for k, v in load_file(file).items() if k.startswith("encoder.")}
            assert stored
            assert all(torch.equal(own[key], tensor) for key, tensor in stored.items())


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"merge_ratio": 0.25}, {}),
        ({"deep_supervision": False}, {}),
        ({}, {"mask": "uniform", "mask_ratio": 0.75}),
    ],
)
def test_variants_of_pretraining(
    fields: dict[str, Any], settings: dict[str, Any], site: Site, tmp_path: Path
) -> None:
    job = pretraining("affmae-nano", settings={**SMALL, **settings}, **fields)
    result = carry_out(job, replace(site, runs=tmp_path), {})
    _, metadata = load_model(model_of(tmp_path, job.name))
    assert metadata.model.merge_ratio == fields.get("merge_ratio", 0.4)
    assert result["job"]["settings"] == job.settings


def test_a_job_that_was_stopped_ends_as_if_it_had_not_been(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = segmentation("affmae-nano", settings={**SMALL, "steps": 6})
    whole = carry_out(job, replace(site, runs=tmp_path / "whole"), {})
    parts = replace(site, runs=tmp_path / "parts", deadline=10.0)
    # A clock that goes on by one an event.
    ticks = iter(range(1000))
    clock = SimpleNamespace(time=lambda: next(ticks), perf_counter=lambda: 0.0)
    monkeypatch.setattr(execution, "time", clock)
    with pytest.raises(TimeIsUpError):
        carry_out(job, parts, {})
    assert list((parts.runs / job.name / "checkpoints").glob("step_*"))
    resumed = carry_out(job, replace(parts, deadline=math.inf), {})
    assert resumed["validations"] == whole["validations"]
    assert resumed["loss"] == whole["loss"]
