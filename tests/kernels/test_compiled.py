"""Every kernel compiled for every generation of GPUs that users have; needs no GPU."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# Compute capability, and the shared memory that one program may have, KiB. Code for 8.0 and 8.9
# is that for 8.6, whose programs have least memory.
LIMITS = {75: 64, 86: 99, 90: 227, 120: 99}


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("capability", LIMITS)
def test_kernels_compile_and_fit(capability: int, tmp_path: Path) -> None:
    lane = Path(__file__).parent / "lane" / "compile_all.py"
    finished = subprocess.run(
        [sys.executable, str(lane), str(capability), str(LIMITS[capability] * 1024)],
        env=os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
