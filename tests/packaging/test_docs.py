"""The pages that the documentation's own build cannot check."""

import re
from pathlib import Path

import affmae_kernels

PAGE = Path(__file__).parents[2] / "docs" / "api" / "kernels.md"


def test_every_operation_is_on_the_page_of_the_kernels() -> None:
    # Packages named like the operation in them hide it from a reader of sources.
    listed = re.findall(r"^::: affmae_kernels\.(?:\w+\.)*(\w+)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(affmae_kernels.__all__)
