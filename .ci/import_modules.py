"""Import every module of the installed plugin, so that no dependency is missing from its metadata.

Only what the extras name may be missing.
"""

import re
import sys
from importlib import import_module
from importlib.metadata import requires
from pkgutil import walk_packages

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


def main() -> int:
    """Import them; returns the exit code."""
    optional, missing = extras(), []
    for package in PACKAGES:
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            if module.name.endswith(".__main__"):  # runs the command line
                continue
            try:
                import_module(module.name)
            except ModuleNotFoundError as error:
                if str(error.name).partition(".")[0] not in optional:
                    missing.append(f"{module.name}: {error}")
    for line in missing:
        print(line)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
