"""Computes the blocks of a volume by the workers of a dask cluster.

This is the only module that needs the extra ``distributed``. Workers need this
package, and the folders of image, model and result under the same names.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import lru_cache

from distributed import Client

from napari_affmae.config import SegmentConfig
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.inference.segmentation import Segmenter
from napari_affmae.engine.results.volume import Volume
from napari_affmae.engine.volumes.blocks import BlockJob, BlockWork
from napari_affmae.engine.volumes.executor import Submit
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.errors import CheckpointError, DeviceUnavailableError

# Enough that no worker waits for the next block, and few enough for any scheduler.
_BLOCKS_PER_WORKER = 2
_SECONDS = 10


class Cluster:
    """Workers that an existing scheduler of dask knows; one worker a GPU is best.

    A block whose worker is lost is given to another one.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``"tcp://node1:8786"``.

    Raises
    ------
    DeviceUnavailableError
        If there is no scheduler, or it has no workers.
    """

    tells_tiles = False

    def __init__(self, address: str) -> None:
        try:
            self._client = Client(address, timeout=_SECONDS)
        except (OSError, ValueError) as error:
            raise DeviceUnavailableError(
                f"no scheduler of dask answers at {address} ({error}); start one, or compute "
                "without it"
            ) from error
        self._workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        if not self._workers:
            raise DeviceUnavailableError(
                f"the scheduler at {address} has no workers; start some, with one thread each"
            )

    def most(self, nbytes: int) -> int:  # noqa: ARG002 - results do not lie here
        """Return how many tasks are handed out at a time."""
        return _BLOCKS_PER_WORKER * self._workers

    def precision(self, config: SegmentConfig) -> str | None:
        """Ask a worker in which precision its device computes."""
        found: str = self._client.submit(_precision, config, pure=False).result()
        return found

    @contextmanager
    def starting(self, work: BlockWork, on_tile: Callable[[], None]) -> Iterator[Submit]:  # noqa: ARG002 - only blocks are told
        """Hand blocks to the workers; see `Executor`."""
        executor = self._client.get_executor(pure=False)

        def submit(numbers: Sequence[int]) -> Future[None]:
            future: Future[None] = executor.submit(_compute, work.job, numbers)
            return future

        try:
            yield submit
        finally:
            executor.shutdown(wait=False)

    def close(self) -> None:
        """Leave the cluster, which goes on without this process."""
        self._client.close()


def _precision(config: SegmentConfig) -> str:
    return plan_device(config.device, config.precision).precision


def _compute(job: BlockJob, numbers: Sequence[int]) -> None:
    """Compute blocks, in a worker."""
    work = BlockWork(job, _segmenter(job).predictor, Volume(job.place))
    work(numbers)(lambda: None)


def _segmenter(job: BlockJob) -> Segmenter:
    return _loaded(str(job.model), job.origin.model, job.config.model_dump_json())


@lru_cache(maxsize=1)
def _loaded(model: str, fingerprint: str, config: str) -> Segmenter:
    """Load a network once for all blocks."""
    settings = SegmentConfig.model_validate_json(config)
    origins = Origins(model, settings)
    if origins.model != fingerprint:
        raise CheckpointError(f"{model} is another model for this worker, or has changed meanwhile")
    return Segmenter(origins.file, settings)
