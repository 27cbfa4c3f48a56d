"""Time every operation at the sizes of the base preset, on one GPU.

Each call is captured in a CUDA graph, so that launches cost nothing. The script
prints and saves medians in microseconds, and floors beside them: inputs and
outputs (and their gradients, backwards) over the bandwidth of a large copy.
"""

import argparse
import csv
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from crops import draw_plan, draw_pool
from torch import Tensor

from affmae_kernels import (
    Neighbourhood,
    TokenSearch,
    cluster_attention,
    cluster_merge,
    cut_crops,
    deformable_attention,
    dice_focal,
    find_neighbourhood,
    gelu,
    index_tokens,
    mask_noise,
    masked_convolution,
    residual_norm,
)

RESULTS = Path(__file__).parent / "results"
NEIGHBOURHOOD, CLUSTER, MERGE_RATIO, NEAREST = 64, 8, 0.4, 4
DECODER_HEADS, DECODER_WIDTH, POINTS = 6, 64, 4
PATCH, CLASSES, MLP_RATIO = 8, 4, 3
STAGES = ((128, 4), (256, 8), (512, 16), (768, 24))  # channels and heads of "base"
CROPPED = 2**24  # pixels of a batch of crops
Call = Callable[[], Tensor]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pixels", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS / "operations.csv")
    arguments = parser.parse_args()
    # Gradients are awaited by the stream on which their tensors were made, which can be
    # captured only if it is not the default one.
    with torch.cuda.stream(torch.cuda.Stream()):
        rows = list(measure(arguments.pixels, arguments.batch))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def measure(sizes: Sequence[int], batch: int) -> Iterator[dict[str, object]]:
    """Time the operations for images of some sizes, pixels."""
    bandwidth = copy_bandwidth()
    for pixels in sizes:
        for stage, name, call, leaves in operations(pixels // PATCH, batch):
            out = call()
            forward = median_time(call)
            ones = torch.ones_like(out)
            both = median_time(lambda c=call, x=leaves, g=ones: torch.autograd.grad(c(), x, g)[0])
            inputs, result = sum(leaf.nbytes for leaf in leaves), out.nbytes
            times = (forward, both - forward)
            floors = ((inputs + result) / bandwidth, (2 * inputs + result) / bandwidth)
            yield row(pixels, batch, stage, name, times, floors)
        for name, call, moved in preparations(pixels):
            times, floors = (median_time(call),), (moved / bandwidth,)
            yield row(pixels, CROPPED // pixels**2, 0, name, times, floors)


def row(
    pixels: int,
    batch: int,
    stage: int,
    name: str,
    times: Sequence[float],
    floors: Sequence[float],
) -> dict[str, object]:
    """Print and return a row of the table; an operation without gradients has one time."""
    values: dict[str, object] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "pixels": pixels,
        "batch": batch,
        "stage": stage,
        "operation": name,
        "forward_us": "",
        "forward_floor_us": "",
        "backward_us": "",
        "backward_floor_us": "",
    }
    for pass_, time, floor in zip(("forward", "backward"), times, floors, strict=False):
        values |= {f"{pass_}_us": round(time, 1), f"{pass_}_floor_us": round(floor, 1)}
    print(*(f"{value:>15}" for value in list(values.values())[2:]))
    return values


def copy_bandwidth() -> float:
    """Measure bytes a microsecond of a large copy, read and written."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_time(lambda: target.copy_(source))


def operations(cells: int, batch: int) -> Iterator[tuple[int, str, Call, list[Tensor]]]:
    """Yield stage, name, call and differentiable inputs of every operation."""
    canvas = (cells, cells)
    order = torch.rand(batch, cells * cells, device="cuda").argsort(1)
    visible, hidden = order.chunk(2, 1)
    hidden = hidden.sort(1).values
    queries = torch.stack([hidden % cells, hidden // cells], -1).float()
    tokens = visible.shape[1]
    for stage, (channels, heads) in enumerate(STAGES):
        pos = positions(visible[:, :tokens].sort(1).values, cells)
        around = find_neighbourhood(pos, canvas, NEIGHBOURHOOD, CLUSTER)
        yield stage, "attention", *attention(around, heads, channels // heads)
        kept = torch.arange(0, tokens, round(1 / MERGE_RATIO), device="cuda").expand(batch, -1)
        yield stage, "merging", *merging(around.select(kept), channels)
        yield stage, "deformable", *deformable(queries, index_tokens(pos, canvas, NEAREST))
        yield stage, "norm", *norm(batch, tokens, channels)
        yield stage, "gelu", *activation(batch, tokens, MLP_RATIO * channels)
        tokens = int(tokens * MERGE_RATIO)
    yield 0, "decoder norm", *norm(batch, queries.shape[1], DECODER_HEADS * DECODER_WIDTH)
    yield 0, "embedding", *embedding(cells, batch)
    yield 0, "loss", *loss(cells * PATCH, batch)


def preparations(pixels: int) -> Iterator[tuple[str, Call, int]]:
    """Yield name, call and bytes moved of what comes before the network."""
    device, batch = torch.device("cuda"), CROPPED // pixels**2
    pool = draw_pool(device)
    for name, changed, labels in (
        ("straight crops", False, None),
        ("straight crops, labelled", False, pool % CLASSES),
        ("changed crops", True, None),
    ):
        # Pixels of the crops are read once, and their images and classes written.
        moved = batch * pixels**2 * (1 + 4 + (0 if labels is None else 1 + 8))
        yield name, crops(pool, pixels, batch, changed, labels), moved
    keys, cells = (torch.full((batch,), 8, device=device) for _ in range(2))
    canvas = (pixels // PATCH, pixels // PATCH)
    moved = batch * canvas[0] * canvas[1] * 4
    yield "mask noise", lambda: mask_noise(keys, canvas, "perlin", cells), moved


def crops(pool: Tensor, pixels: int, batch: int, changed: bool, labels: Tensor | None) -> Call:
    """Prepare the cutting of crops."""
    plan = draw_plan(batch, pixels, changed, pool.device)
    how = {"bent": changed, "lit": changed, "blurred": changed}
    return lambda: cut_crops(pool, plan, pixels, labels=labels, **how)[0]


def positions(ids: Tensor, cells: int) -> Tensor:
    """Turn row-major indices into positions, in bands of 8 rows as clusters are."""
    x, y = ids % cells, ids // cells
    band = (y // 8 * cells + x).sort(dim=1, stable=True).indices
    return torch.stack([x, y], -1).gather(1, band[..., None].expand(-1, -1, 2)).float()


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw a differentiable input."""
    return torch.randn(shape, device="cuda").to(dtype).requires_grad_()


def attention(around: Neighbourhood, heads: int, width: int) -> tuple[Call, list[Tensor]]:
    """Prepare cluster attention."""
    large = draw(*around.query_pos.shape[:2], 3, heads, width, dtype=torch.float16)
    small = [draw(3, heads, width), draw(heads, width), draw(heads, width)]
    small += [draw(heads, 5), draw(heads)]
    return lambda: cluster_attention(large, *small, around), [large, *small]


def merging(around: Neighbourhood, channels: int) -> tuple[Call, list[Tensor]]:
    """Prepare cluster merging."""
    batch, tokens, _ = around.key_pos.shape
    inputs = [draw(batch, tokens, channels, dtype=torch.float16), draw(batch, tokens, 1)]
    inputs += [draw(4, 5), draw(4), draw(4), draw(4)]
    return lambda: cluster_merge(*inputs, around), inputs


def deformable(queries: Tensor, index: TokenSearch) -> tuple[Call, list[Tensor]]:
    """Prepare deformable cross-attention."""
    batch, count, _ = queries.shape
    half = torch.float16
    values = draw(batch, index.points.shape[1], DECODER_HEADS, DECODER_WIDTH, dtype=half)
    sampling = draw(batch, count, DECODER_HEADS * POINTS * 3, dtype=half)
    inputs = [values, sampling, draw(1).squeeze(0)]
    return lambda: deformable_attention(values, queries, *inputs[1:], index), inputs


def norm(batch: int, tokens: int, channels: int) -> tuple[Call, list[Tensor]]:
    """Prepare the norm of a sum."""
    large = [draw(batch, tokens, channels, dtype=torch.float16) for _ in range(2)]
    inputs = [*large, draw(channels), draw(channels), draw(channels)]

    def call() -> Tensor:
        return residual_norm(*inputs[:4], branch_bias=inputs[4])[0]

    return call, inputs


def activation(batch: int, tokens: int, channels: int) -> tuple[Call, list[Tensor]]:
    """Prepare GELU with a bias."""
    inputs = [draw(batch, tokens, channels, dtype=torch.float16), draw(channels)]
    return lambda: gelu(*inputs), inputs


def embedding(cells: int, batch: int) -> tuple[Call, list[Tensor]]:
    """Prepare the first step of the patch embedding."""
    images = torch.randn(batch, 1, cells * PATCH, cells * PATCH, device="cuda")
    visible = torch.rand(batch, 1, cells, cells, device="cuda").round()
    width = STAGES[0][0] // 2
    inputs = [draw(width, 1, 3, 3, dtype=torch.float16), draw(width), draw(width), draw(width)]
    return lambda: masked_convolution(images, visible, *inputs), inputs


def loss(pixels: int, batch: int) -> tuple[Call, list[Tensor]]:
    """Prepare the loss of segmentation."""
    logits = draw(batch, CLASSES, pixels, pixels, dtype=torch.float16)
    target = torch.randint(CLASSES, (batch, pixels, pixels), device="cuda")
    return lambda: dice_focal(logits, target), [logits]


def median_time(call: Call, repeats: int = 20) -> float:
    """Capture a call, and time its replays in microseconds."""
    graph = torch.cuda.CUDAGraph()
    call()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        call()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


if __name__ == "__main__":
    main()
