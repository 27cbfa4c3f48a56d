"""Make sure that Debian has what Qt and a virtual screen need.

Installs missing packages where it may; else prints the one line to run, and
fails. On other systems, whose Qt wheels bring what they need, it does nothing.
"""

import os
import shlex
import shutil
import subprocess
import sys

PACKAGES = (
    # Qt itself
    "libdbus-1-3",
    "libegl1",
    "libfontconfig1",
    "libgl1",
    "libglib2.0-0",
    "libxkbcommon0",
    # windows on a virtual screen, with OpenGL in software
    "libxcb-cursor0",
    "libxcb-icccm4",
    "libxcb-keysyms1",
    "libxcb-shape0",
    "libxkbcommon-x11-0",
    "xauth",
    "xvfb",
)


def missing() -> list[str]:
    """List the packages that are not installed, under this name or one that provides it."""
    status = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}${Package} ${Provides}\n"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    there = set()
    for line in status.splitlines():
        if line.startswith("ii"):
            there.update(word.strip(",") for word in line[3:].split())
    return [package for package in PACKAGES if package not in there]


def main() -> int:
    """Install what is missing; returns the exit code."""
    if not (shutil.which("dpkg-query") and shutil.which("apt-get")):
        return 0
    wanted = missing()
    if not wanted:
        return 0
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *wanted]
    if os.geteuid() != 0:
        line = f"sudo apt-get update && sudo {shlex.join(install)}"
        print(f"The tests need Debian packages that are missing. Install them by\n\n  {line}\n")
        return 1
    subprocess.run(["apt-get", "update"], check=True)
    subprocess.run(install, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
