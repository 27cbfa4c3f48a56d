"""AdamW with its parameter groups, layer-wise decay of the rate, and its state as named tensors."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from napari_affmae.errors import CheckpointError
from napari_affmae.model import AFFSegmenter


def make_optimiser(
    module: nn.Module,
    betas: tuple[float, float],
    weight_decay: float,
    scale: Callable[[str], float],
    *,
    fused: bool = False,
) -> torch.optim.AdamW:
    """Make AdamW; vectors (norms, biases, single tokens) do not decay.

    Parameters
    ----------
    module : nn.Module
        The network; parameters that need no gradient are left out.
    betas : tuple[float, float]
        Of AdamW.
    weight_decay : float
        For parameters of two and more dimensions.
    scale : Callable[[str], float]
        Factor of the learning rate by parameter name.
    fused : bool
        Whether one kernel updates all weights, so that a step can be recorded.

    Returns
    -------
    torch.optim.AdamW
        With a rate of 0; ``"scale"`` of each group is its factor.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scale(name), decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "scale": factor}
            for (factor, decay), parameters in groups.items()
        ],
        lr=0.0,
        betas=betas,
        fused=fused,
        capturable=fused and next(module.parameters()).is_cuda,
    )


def state_tensors(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Collect the optimiser's state under ``parameter name/state name``.

    Parameters
    ----------
    module : nn.Module
        The network that is optimised.
    optimiser : torch.optim.Optimizer
        Its optimiser.

    Returns
    -------
    dict[str, Tensor]
        On the CPU, where they may share the optimiser's memory; parameters
        without a step yet have none.
    """
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in module.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def load_state_tensors(
    module: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Restore what `state_tensors` collected.

    Parameters
    ----------
    module : nn.Module
        The network that is optimised.
    optimiser : torch.optim.Optimizer
        Its optimiser, made with the same groups.
    tensors : Mapping[str, Tensor]
        From `state_tensors`.

    Raises
    ------
    CheckpointError
        If a tensor belongs to no parameter or has another shape.
    """
    names = {parameter: name for name, parameter in module.named_parameters()}
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition("/")
        by_name.setdefault(name, {})[kind] = tensor
    content: dict[str, Any] = optimiser.state_dict()
    index = 0
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            stored = by_name.pop(names[parameter], {})
            _check_shapes(names[parameter], parameter, stored)
            if stored:
                content["state"][index] = stored
            index += 1
    if by_name:
        raise CheckpointError(
            f"the optimiser's checkpoint has state for {next(iter(by_name))!r}, "
            "which the model does not have; it belongs to another model"
        )
    # torch itself moves each tensor to the device where its parameter needs it.
    optimiser.load_state_dict(content)


def _check_shapes(name: str, parameter: Tensor, state: Mapping[str, Tensor]) -> None:
    for key, tensor in state.items():
        if tensor.ndim and tensor.shape != parameter.shape:
            raise CheckpointError(
                f"the optimiser's checkpoint has {key} of shape {tuple(tensor.shape)} for "
                f"{name!r}, which has shape {tuple(parameter.shape)}"
            )


def layer_scales(module: AFFSegmenter, decay: float) -> dict[str, float]:
    """Give each parameter of the encoder its factor of the learning rate.

    With n attention blocks, the last has ``decay``, the one before it
    ``decay**2``, the first and the patch embedding ``decay**n``. Merging and
    the norm of a stage's features go with the block before them. Decoder and
    heads are not listed: their factor is 1.

    Parameters
    ----------
    module : AFFSegmenter
        The network.
    decay : float
        Factor from block to block.

    Returns
    -------
    dict[str, float]
        Factor by parameter name.
    """
    encoder = module.encoder
    depth = sum(module.config.blocks)
    scales = {
        f"encoder.patch_embedding.{name}": decay**depth
        for name, _ in encoder.patch_embedding.named_parameters()
    }
    number = 0
    for index, (stage, blocks) in enumerate(zip(encoder.stages, module.config.blocks, strict=True)):
        first = number
        number += blocks
        for name, _ in stage.named_parameters():
            part, _, rest = name.partition(".")
            block = first + int(rest.split(".")[0]) if part == "blocks" else number - 1
            scales[f"encoder.stages.{index}.{name}"] = decay ** (depth - block)
    return scales
