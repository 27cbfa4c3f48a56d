"""Runs the folder as a program: ``python benchmarks/reliability``."""

import sys
from pathlib import Path

# As for the scripts beside this folder, and so that its modules are those of a package.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from reliability.commands import main  # noqa: E402 - found by the line above

if __name__ == "__main__":
    sys.exit(main())
