"""What several of the kernels' tests need."""

from collections.abc import Iterator

import pytest
from uninitialised import filled


@pytest.fixture
def uninitialised_is_nan() -> Iterator[None]:
    """Memory is NaN until something is written to it."""
    with filled():
        yield
