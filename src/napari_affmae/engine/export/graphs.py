"""Networks as graphs that run without this program: TorchScript and ONNX.

Both are made of the program that `torch.export` records for one size of images. What
depends on the size alone, such as the order of cells, is a constant in it.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from napari_affmae.errors import ExportError
from napari_affmae.model import PortableSegmenter

#: Tokens of the largest image that a graph is made for: sizes are fixed in it, and each
#: token's neighbours are looked for among all others.
MOST_TOKENS = 4096
#: Names of a graph's input and output.
INPUT_NAME, OUTPUT_NAME = "image", "probabilities"
# As bioimage.io compares by default.
_TOLERANCE, _MISMATCHES = 1e-3, 1e-4

Floats = NDArray[np.float32]


def fits_a_graph(network: PortableSegmenter, images: Tensor) -> bool:
    """Return whether images are small enough that a graph can be made for their size."""
    patch = network.network.config.patch_size
    return prod(-(-side // patch) for side in images.shape[-2:]) <= MOST_TOKENS


class Graphs:
    """The graph of a network, for images of one size.

    Parameters
    ----------
    network : PortableSegmenter
        The network, on the CPU and in evaluation mode.
    images : Tensor
        (1, C, H, W) float32, normalised.
    output : ndarray, (1, classes, H, W), float32
        What the network says of them. It must have been computed already: tables that the
        network keeps for a size must not be made of the tensors without values that are
        used while recording.
    """

    def __init__(self, network: PortableSegmenter, images: Tensor, output: Floats) -> None:
        self._images, self._output = images, output
        with torch.no_grad():
            self._program = torch.export.export(network, (images,), strict=False)

    def torchscript(self) -> bytes:
        """Encode the graph as TorchScript.

        Raises
        ------
        ExportError
            If it does not compute what the network does.
        """
        with torch.no_grad(), _quiet():
            traced = torch.jit.trace(self._program.module(), self._images, check_trace=False)
            content = BytesIO()
            torch.jit.save(traced, content)
            content.seek(0)
            self._check("TorchScript", lambda: torch.jit.load(content)(self._images).numpy())
        return content.getvalue()

    def onnx(self) -> tuple[bytes, int]:
        """Encode the graph as ONNX.

        Returns
        -------
        bytes
            The content of its file.
        int
            The version of its operators.

        Raises
        ------
        ExportError
            If it does not compute what the network does.
        """
        import onnxruntime  # noqa: PLC0415 - an extra

        with torch.no_grad(), _quiet():
            converted: Any = torch.onnx.export(
                self._program,
                dynamo=True,
                verbose=False,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
            )
        content = converted.model_proto.SerializeToString()

        def run() -> Floats:
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            found: Floats = session.run(None, {INPUT_NAME: self._images.numpy()})[0]
            return found

        self._check("ONNX", run)
        return content, int(converted.model.opset_imports[""])

    def _check(self, name: str, run: Callable[[], Floats]) -> None:
        found = run()
        wrong = np.abs(found - self._output) > _TOLERANCE * (1 + np.abs(self._output))
        if wrong.mean() > _MISMATCHES:
            raise ExportError(
                f"the {name} graph of this model computes other probabilities than the model, by "
                f"up to {np.abs(found - self._output).max():.2g}; export it without graphs"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what these libraries tell their own developers.

    torch warns that sizes become constants, which is what is wanted here, that TorchScript
    will end, whose files other programs still read, and of its own code; it tells that
    there is no torchvision to convert, and onnxscript what it does not make shorter.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (TracerWarning, DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
