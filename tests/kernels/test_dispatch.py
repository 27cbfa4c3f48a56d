"""Which backend is taken, and what is said of it."""

import subprocess
import sys

import pytest
import torch

from affmae_kernels import BackendUnavailableError, choose_backend, find_neighbourhood


def test_auto_takes_pytorch_on_the_cpu_and_says_why_once() -> None:
    code = (
        "import logging, torch; logging.basicConfig(level=logging.INFO)\n"
        "from affmae_kernels import choose_backend\n"
        "print({choose_backend('auto', torch.device('cpu')) for _ in range(3)})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'torch'}"
    assert done.stderr.count("through PyTorch (cpu)") == 1


def test_triton_that_cannot_run_is_refused_with_the_reason() -> None:
    line = torch.stack([torch.arange(9.0), torch.zeros(9)], -1)[None]
    with pytest.raises(BackendUnavailableError, match="the Triton kernels cannot run: "):
        find_neighbourhood(line, (1, 9), 4, 2, backend="triton")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, triton, torch, got 'cuda'"):
        choose_backend("cuda", torch.device("cpu"))  # type: ignore[arg-type]


def test_importing_the_operations_does_not_import_triton() -> None:
    code = "import sys, affmae_kernels; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
