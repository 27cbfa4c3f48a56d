"""Find out whether the installed plugin's metadata name all that its modules import.

Every module is imported, and what functions import only later is looked for. Only what the
extras name may be missing.
"""

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType

from packaging.requirements import Requirement

PACKAGES = ("affmae_kernels", "napari_affmae")


def extras() -> set[str]:
    """List the packages, by the first part of their names, that only extras require."""
    needed = map(Requirement, requires("napari-affmae") or ())
    return {
        re.split(r"[-.]", need.name)[0]
        for need in needed
        if need.marker is not None and "extra" in str(need.marker)
    }


def imported_by(module: ModuleType) -> Iterator[str]:
    """Yield the packages that a module imports anywhere in its text."""
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        yield from (name.partition(".")[0] for name in names)


def missing(name: str, optional: set[str]) -> list[str]:
    """List what a module lacks."""
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        return [] if str(error.name).partition(".")[0] in optional else [f"{name}: {error}"]
    there = optional | sys.stdlib_module_names
    return [
        f"{name}: imports {package} later, which is not there"
        for package in set(imported_by(module))
        if package not in there and find_spec(package) is None
    ]


def main() -> int:
    """Look at all modules; returns the exit code."""
    optional = extras()
    names = (
        module.name
        for package in PACKAGES
        for module in walk_packages(import_module(package).__path__, f"{package}.")
        if not module.name.endswith(".__main__")  # runs the command line
    )
    lines = [line for name in names for line in missing(name, optional)]
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
