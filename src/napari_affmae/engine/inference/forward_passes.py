"""Forward passes of a segmentation network, computed directly or recorded and replayed."""

import logging
from collections import Counter

import torch
from torch import Tensor

from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.model import AFFSegmenter, QuickSegmenter
from napari_affmae.model.capture import Captured, CaptureError, GraphMemory

logger = logging.getLogger(__name__)

# Recording takes as long as a few passes. A validation, which records anew each time,
# and a small image need only so many; a large image needs hundreds.
_BEFORE_RECORDING = 8
# Shapes that are recorded: a full batch of tiles, and the rest at the end of a row.
_MOST_SHAPES = 4


class ForwardPasses:
    """Class probabilities of batches of tiles.

    On a CUDA GPU, passes of a frequent shape are recorded as a CUDA graph, which
    reads the current weights whenever it is replayed.

    Parameters
    ----------
    module : AFFSegmenter or QuickSegmenter
        The network, on the device.
    runtime : Runtime
        Device and precision.
    capture : bool
        Whether to record passes where that is possible.
    """

    def __init__(
        self, module: AFFSegmenter | QuickSegmenter, runtime: Runtime, *, capture: bool = True
    ) -> None:
        self._runtime = runtime
        # The head of quick training computes in float32, so its weights must stay float32.
        self._network = module if isinstance(module, QuickSegmenter) else runtime.network(module)
        self._can_record = capture and runtime.plan.device.type == "cuda"
        self._seen: Counter[torch.Size] = Counter()
        self._recorded: dict[torch.Size, Captured[Tensor]] = {}
        self._memory: GraphMemory | None = None

    def __call__(self, tiles: Tensor) -> Tensor:
        """Predict tiles; the network must be in evaluation mode.

        Parameters
        ----------
        tiles : Tensor
            (count, channels, tile, tile) float32.

        Returns
        -------
        Tensor
            (count, classes, tile, tile) float32 probabilities, on the device. The next
            call may overwrite them.
        """
        self._seen[tiles.shape] += 1
        if tiles.shape in self._recorded or self._record(tiles):
            return self._recorded[tiles.shape](tiles)
        return self._compute(*self._runtime.to_device((tiles,)))

    def release(self) -> None:
        """Free the recorded passes and their memory."""
        self._recorded.clear()
        self._memory = None

    def _compute(self, tiles: Tensor) -> Tensor:
        # A recorded pass must not use weights that autocast has cached before.
        with self._runtime.computing(keep_casts=False):
            probabilities: Tensor = self._network(tiles).float().softmax(1)
            return probabilities

    def _record(self, tiles: Tensor) -> bool:
        """Record passes of a shape if that saves time; return whether they were recorded."""
        if (
            not self._can_record
            or self._seen[tiles.shape] <= _BEFORE_RECORDING
            or len(self._recorded) == _MOST_SHAPES
        ):
            return False
        if self._memory is None:
            self._memory = GraphMemory(self._runtime.plan.device)
        try:
            self._recorded[tiles.shape] = Captured(
                self._compute, self._runtime.to_device((tiles,)), memory=self._memory
            )
        except CaptureError as error:
            # Only the text: the error itself would keep tensors alive as long as the message.
            reason = str(error)
            logger.warning("predictions are not recorded as CUDA graphs, so slower: %s", reason)
            self._can_record = False
            self.release()
            return False
        return True
