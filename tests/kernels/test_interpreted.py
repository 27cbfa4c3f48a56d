"""The Triton kernels under Triton's interpreter, where there is no GPU: one process for all."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

LANE = Path(__file__).parent / "lane"


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("script", ["compare.py", "compare_crops.py", "registration.py"])
def test_kernels_under_the_interpreter(script: str) -> None:
    # Triton reads TRITON_INTERPRET when a kernel is defined: the lane is a process of its own.
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(LANE / script)],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
