"""How much of the network's speed a segmentation uses, from array to labels.

    python benchmarks/inference.py [--device cuda] [--preset base] [--side 4096] [--tile 1024]

The network has random weights, since only its time counts, and the images are synthetic
electron microscopy in memory. On a GPU every case is run once before it is measured. `fitting`
is what the numbers take that normalise a stack, which are part of the whole; `network alone`
the forward passes of batches that lie on the device, and `share` its part of the whole. `busy`
is the share of the time in which some kernel runs on the GPU, from a run of its own that is
slowed down by being watched.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from environment import RESULTS, WIDTH, describe, write_csv
from numpy.typing import NDArray
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from napari_affmae.config import LabelClass, NormalizationConfig, SegmentConfig
from napari_affmae.data import ImageSource, NormalizationRecord, open_source, synthetic_em
from napari_affmae.engine import Segmenter, VolumeSegmenter
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.inference.forward_passes import ForwardPasses
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.model_files import load_model, model_bytes
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.model import AFFSegmenter
from napari_affmae.model.presets import preset

CLASSES = 4
_TEXTURE = 512
_SMALL = 256
# More than it takes until passes are recorded.
_WARM_UP = 12
_PASSES = 10

Row = dict[str, object]


def stack(planes: int, side: int) -> NDArray[np.uint8]:
    """Make planes of one byte a pixel, of shifted copies of a texture."""
    texture = synthetic_em((1, _TEXTURE, _TEXTURE), seed=0)[0][0]
    repeats = -(-side // _TEXTURE)
    whole = np.tile(texture, (repeats, repeats))[:side, :side]
    return np.stack([np.roll(whole, 37 * plane, (0, 1)) for plane in range(planes)])


def write_model(path: Path, size: str, tile: int) -> None:
    """Write a model with random weights."""
    torch.manual_seed(0)
    module = AFFSegmenter(preset(size), CLASSES)
    metadata = ModelMetadata(
        kind="segment",
        model=module.config,
        normalization=NormalizationRecord(config=NormalizationConfig(), statistics={}),
        crop=tile,
        classes=tuple(
            LabelClass(value=n, name=f"class {n}", color=f"#00000{n}") for n in range(CLASSES)
        ),
    )
    path.write_bytes(model_bytes(module, metadata))


class Bench:
    """Measures a segmentation with one size of tiles on one device.

    Parameters
    ----------
    folder : Path
        Where model and results are written.
    size : str
        Preset of the network.
    config : SegmentConfig
        Tiles, batch, device and precision.
    watched : bool
        Whether to watch the GPU, too.
    """

    def __init__(self, folder: Path, size: str, config: SegmentConfig, *, watched: bool) -> None:
        self._folder, self._config = folder, config
        self._model = folder / f"{config.tile}.safetensors"
        write_model(self._model, size, int(config.tile))
        self._plan = plan_device(config.device, config.precision)
        self._on_gpu = self._plan.device.type == "cuda"
        self._watched = watched and self._on_gpu
        self._segmenter = Segmenter(self._model, config)
        self._volumes = VolumeSegmenter(Origins(self._model, config), config)
        self._per_tile: float | None = None

    def row(self, name: str, planes: int, side: int, *, to_disk: bool = False) -> Row:
        """Measure a stack of planes, into memory or into OME-Zarr."""
        source = open_source(stack(planes, side), axes="ZYX", name=name)
        start = perf_counter()
        normalized = self._segmenter.normalize(source)
        fitting = perf_counter() - start
        grid = self._segmenter.predictor.grid_of(normalized)
        tiles = planes * len(grid.rows) * len(grid.columns)
        seconds, busy = self._measure(lambda: self._run(source, to_disk=to_disk))
        network = self._network() * tiles
        return {
            "case": name,
            "planes": planes,
            "side": side,
            "tile": self._config.tile,
            "batch": self._segmenter.predictor.batch,
            "seconds a plane": f"{seconds / planes:.4f}",
            "fitting": f"{fitting / planes:.4f}",
            "network alone": f"{network / planes:.4f}",
            "share": f"{network / seconds:.2f}",
            "busy": "" if busy is None else f"{busy:.2f}",
            "planes/s": f"{planes / seconds:.1f}",
        }

    def _run(self, source: ImageSource, *, to_disk: bool) -> Iterator[object]:
        if not to_disk:
            return self._segmenter.segment(source)
        target = self._folder / "result.zarr"
        shutil.rmtree(target, ignore_errors=True)
        return self._volumes.segment(source, target)

    def _measure(self, run: Callable[[], Iterator[object]]) -> tuple[float, float | None]:
        """Return the seconds of a run, and the share of time in which the GPU computes."""
        if self._on_gpu:
            _exhaust(run())
        start = perf_counter()
        _exhaust(run())
        seconds = perf_counter() - start
        if not self._watched:
            return seconds, None
        with profile(activities=[ProfilerActivity.CUDA]) as watched:
            _exhaust(run())
            torch.cuda.synchronize()
        trace = self._folder / "trace.json"
        watched.export_chrome_trace(str(trace))
        return seconds, _busy(trace)

    def _network(self) -> float:
        """Return the seconds that the network alone takes for a tile."""
        if self._per_tile is None:
            module, _ = load_model(self._model)
            device = self._plan.device
            passes = ForwardPasses(module.to(device), Runtime(self._plan))
            batch, tile = self._segmenter.predictor.batch, int(self._config.tile)
            images = torch.randn(batch, 1, tile, tile, device=device)
            count = _PASSES if self._on_gpu else 1
            with self._plan.active(), evaluating(module):
                for _ in range(_WARM_UP if self._on_gpu else 1):
                    passes(images)
                self._wait()
                start = perf_counter()
                for _ in range(count):
                    passes(images)
                self._wait()
            self._per_tile = (perf_counter() - start) / (count * batch)
        return self._per_tile

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()


def _busy(trace: Path) -> float:
    """Return the share of the time from the first kernel to the last in which one runs."""
    kernels = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in json.loads(trace.read_text())["traceEvents"]
        if event.get("cat") == "kernel"
    )
    if not kernels:  # what watches the GPU may not be there
        return float("nan")
    total, end = 0.0, kernels[0][0]
    for first, last in kernels:
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total / (end - kernels[0][0])


def _exhaust(events: Iterable[object]) -> None:
    for _ in events:
        pass


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "fp16", "bf16"], default="auto")
    parser.add_argument("--preset", choices=["nano", "small", "base"], default="base")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--planes", type=int, default=16)
    parser.add_argument("--small", type=int, default=2000, help="planes of 256 pixels a side")
    parser.add_argument("--batch", default="auto")
    parser.add_argument("--no-busy", action="store_true", help="do not watch the GPU")
    parser.add_argument("--out", type=Path, default=RESULTS / "inference.csv")
    arguments = parser.parse_args()
    batch = arguments.batch if arguments.batch == "auto" else int(arguments.batch)
    config = SegmentConfig(
        device=arguments.device, precision=arguments.precision, batch=batch, tile=arguments.tile
    )
    console = Console(width=WIDTH)
    rows = []
    watched = not arguments.no_busy
    with tempfile.TemporaryDirectory() as name:
        large = Bench(Path(name), arguments.preset, config, watched=watched)
        tiny = config.model_copy(update={"tile": _SMALL})
        small = Bench(Path(name), arguments.preset, tiny, watched=watched)
        side, planes, many = arguments.side, arguments.planes, arguments.small
        for run in (
            lambda: large.row("one plane", 1, side),
            lambda: large.row("stack", planes, side),
            lambda: large.row("stack to OME-Zarr", planes, side, to_disk=True),
            lambda: small.row("small planes", many, _SMALL),
            lambda: small.row("small planes to OME-Zarr", many, _SMALL, to_disk=True),
        ):
            rows.append(run())
            console.print(rows[-1])
    table = Table(*rows[0], box=MARKDOWN)
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)
    facts = describe(plan_device(arguments.device).device)
    write_csv(arguments.out, [{"preset": arguments.preset, **row, **facts} for row in rows])


if __name__ == "__main__":
    main()
