"""Makes the file of weights that come with the program, out of a pretraining.

    python benchmarks/pack_weights.py RUN NAME
    python benchmarks/pack_weights.py FILE NAME --batch N

writes ``src/napari_affmae/weights/NAME.safetensors``: the model of the run in half precision,
without the statistics of the images that it learned from, which nobody else has. A model file
does not say how many squares a step has seen; a run does. Prints what the file holds, its size
and its checksum.
"""

import argparse
import hashlib
from pathlib import Path

from napari_affmae.engine import load_model, read_record
from napari_affmae.engine.store.model_files import model_bytes
from napari_affmae.engine.store.starting_weights import AUTO, NOTHING, WEIGHTS
from napari_affmae.files import replace_bytes
from napari_affmae.model import AFFMAE


def pack(source: Path, target: Path, batch: int | None = None) -> None:
    """Write the network of a pretraining as starting weights.

    Parameters
    ----------
    source : Path
        The folder of a pretraining run, or its model file.
    target : Path
        The file to write.
    batch : int, optional
        Crops of a step; that of the run by default.

    Raises
    ------
    ValueError
        If it is no pretraining, or a weight is too large for half precision.
    """
    module, metadata = load_model(source)
    if not isinstance(module, AFFMAE):
        raise ValueError(f"{source} is no pretraining")
    module.half()
    large = [name for name, value in module.state_dict().items() if not value.isfinite().all()]
    if large:
        raise ValueError(f"weights are too large for half precision: {', '.join(large)}")
    crops = metadata.training["steps"] * (batch or read_record(source)["batch"])
    metadata = metadata.model_copy(
        update={
            "normalization": metadata.normalization.model_copy(update={"statistics": {}}),
            "training": {**metadata.training, "crops": crops},
        }
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(target, model_bytes(module, metadata))


def main() -> None:
    """Read the command line, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of a pretraining run, or its model file")
    parser.add_argument("name", help="name of the weights, such as em-nano")
    parser.add_argument("--batch", type=int, help="squares a step, which a file does not say")
    given = parser.parse_args()
    if given.name in (AUTO, NOTHING):
        parser.error(f"{given.name!r} has a meaning of its own; choose another name")
    if given.source.is_file() and given.batch is None:
        parser.error("a model file does not say how many squares a step had: give --batch")
    target = WEIGHTS / f"{given.name}.safetensors"
    pack(given.source, target, given.batch)
    content = target.read_bytes()
    print(f"{target}: {len(content) / 1e6:.2f} MB, sha256 {hashlib.sha256(content).hexdigest()}")
    module, metadata = load_model(target)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, trained: {metadata.training}")


if __name__ == "__main__":
    main()
