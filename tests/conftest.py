import os
from collections.abc import Iterator

import pytest

from napari_affmae.data.formats.opening import file_index

# Networks of test size are slower on several threads than on one, most of all
# where tests run beside each other. Here, because it must be set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def index_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is found out about the tests' files out of the user's cache."""
    path = tmp_path_factory.mktemp("cache") / "files.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_index, "index_path", lambda: path)
        yield
