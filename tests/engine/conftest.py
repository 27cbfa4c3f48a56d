"""Tiny images, settings, and runs that several tests look at."""

import multiprocessing
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.data import ImageSource, open_source, synthetic_em
from napari_affmae.engine import finetune, pretrain

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def volume() -> tuple[np.ndarray, np.ndarray]:
    return synthetic_em((6, 80, 96), seed=0)


@pytest.fixture(scope="session")
def image(volume: tuple[np.ndarray, np.ndarray]) -> ImageSource:
    return open_source(volume[0], axes="ZYX", name="volume")


@pytest.fixture(scope="session")
def labels(volume: tuple[np.ndarray, np.ndarray]) -> ImageSource:
    return open_source(volume[1], axes="ZYX", name="labels")


@pytest.fixture(scope="session")
def pretrain_config() -> PretrainConfig:
    return PretrainConfig(
        crop=64,
        batch=2,
        steps=4,
        validation_steps=2,
        device="cpu",
        memory_share=1e-6,  # so little that images come and go
    )


@pytest.fixture(scope="session")
def finetune_config() -> FinetuneConfig:
    return FinetuneConfig(crop=64, batch=2, steps=4, validation_steps=2, device="cpu")


@pytest.fixture(scope="session")
def pretrained(
    tmp_path_factory: pytest.TempPathFactory, image: ImageSource, pretrain_config: PretrainConfig
) -> tuple[Path, list[Any]]:
    """Folder and events of a finished pretraining run; look, do not touch."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    return run, list(pretrain([image], pretrain_config, run))


@pytest.fixture(scope="session")
def finetuned(
    tmp_path_factory: pytest.TempPathFactory,
    image: ImageSource,
    labels: ImageSource,
    finetune_config: FinetuneConfig,
    pretrained: tuple[Path, list[Any]],
) -> tuple[Path, list[Any]]:
    """Folder and events of a finished fine-tuning run; look, do not touch."""
    run = tmp_path_factory.mktemp("finetuned") / "run"
    return run, list(finetune([(image, labels)], finetune_config, run, pretrained=pretrained[0]))


@pytest.fixture(scope="session")
def start_script() -> Callable[..., multiprocessing.process.BaseProcess]:
    """Start one of the scripts in a process of its own, with its global variables."""
    # A server that has imported the engine forks the processes, each import of which
    # would take ten seconds otherwise.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["napari_affmae.engine.training.pretraining", "napari_affmae.engine.training.finetuning"]
    )

    def start(name: str, **variables: Any) -> multiprocessing.process.BaseProcess:
        process = context.Process(
            target=runpy.run_path,
            args=(str(SCRIPTS / name),),
            kwargs={"init_globals": variables},
            daemon=True,
        )
        process.start()
        return process

    return start
