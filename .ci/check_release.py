"""Refuse a release that its tag, its changes or its pages on package indexes would belie.

Takes the tag and the address of the repository that the release is made in.
"""

import re
import sys
import tomllib
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(tag: str, address: str, root: Path = ROOT) -> list[str]:
    """List what keeps the files in `root` from being released as `tag`."""
    with (root / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)
    version = settings["project"]["version"]
    repository = settings["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, and pyproject.toml has version {version}: tag v{version}")
    if repository != address:
        found.append(
            f"pyproject.toml has {repository or 'no address'} as repository and the release is "
            f"made in {address}: the page on the package index needs the latter"
        )
    heading = rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$"
    dated = re.search(heading, (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if dated is None:
        found.append(f"CHANGELOG.md has no line `## [{version}] - {date.today()}`")
    return found


if __name__ == "__main__":
    lines = problems(*sys.argv[1:])
    for line in lines:
        print(line)
    sys.exit(1 if lines else 0)
