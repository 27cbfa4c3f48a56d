"""What a package index shows: the README with links that work there, and the project's links.

An index shows the README away from the repository, so what it names relative to itself needs
the repository's public address, at the tag of the version. That address is the setting
`repository` in pyproject.toml; while it is empty, links stay as they are and there are no others.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_ADDRESS = re.compile(r"https://[^/\s]+/[^/\s]+/[^/\s]+(?<!\.git)")
# Pictures and links of Markdown whose target is neither an address nor a place on the page.
_RELATIVE = re.compile(r"(!?)\[([^\[\]]*)\]\((?!\w+:|#)([^()\s]+)\)")


class IndexPage(MetadataHookInterface):
    """Reads README and links for the metadata of wheel and sdist."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme`` and ``urls`` of the project.

        Parameters
        ----------
        metadata : dict
            The table ``project`` of pyproject.toml, which is changed.

        Raises
        ------
        ValueError
            If the setting is no address of a repository.
        """
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository, tag = self.config["repository"], f"v{metadata['version']}"
        urls = {}
        if repository:
            if not _ADDRESS.fullmatch(repository):
                raise ValueError(
                    f"repository in [tool.hatch.metadata.hooks.custom] is {repository!r}; it must "
                    "be empty or an address like https://github.com/OWNER/NAME, without a slash "
                    "or .git at its end"
                )
            readme = with_addresses(readme, repository, tag)
            urls = {
                "Source": repository,
                "Documentation": f"{repository}/blob/{tag}/docs/tutorial.md",
                "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
        metadata["urls"] = urls


def with_addresses(text: str, repository: str, tag: str) -> str:
    """Give relative pictures and links of Markdown their addresses in a repository.

    Parameters
    ----------
    text : str
        Markdown that lies in the repository's root.
    repository : str
        The repository's address.
    tag : str
        Which state of its files is meant.
    """

    def whole(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        # A picture's page is not the picture.
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/{tag}/{target})"

    return _RELATIVE.sub(whole, text)
