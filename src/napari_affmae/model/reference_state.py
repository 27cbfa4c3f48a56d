"""Import of weights that the method's authors trained."""

import re
from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from napari_affmae.config import ModelConfig
from napari_affmae.model.mae import AFFMAE
from napari_affmae.model.segmenter import AFFSegmenter

# The authors' names (patterns) and ours, in the order in which they are tried.
_NAMES = [
    (r"masked_token", "decoder.query"),
    (r"encoder\.patch_embed\.projs\.(\d+)", r"encoder.patch_embedding.convolutions.\1"),
    (r"encoder\.patch_embed\.lns\.(\d+)\.ln", r"encoder.patch_embedding.norms.\1"),
    (r"encoder\.patch_embed\.norm", "encoder.patch_embedding.norm"),
    (r"encoder\.norms\.(\d+)", r"encoder.stages.\1.norm"),
    (r"encoder\.layers\.(\d+)\.prob_net", r"encoder.stages.\1.merging.importance"),
    (r"encoder\.layers\.(\d+)\.downsample\.weight_net\.0", r"encoder.stages.\1.merging.geometry"),
    (
        r"encoder\.layers\.(\d+)\.downsample\.weight_net\.1",
        r"encoder.stages.\1.merging.geometry_norm",
    ),
    (r"encoder\.layers\.(\d+)\.downsample\.norm", r"encoder.stages.\1.merging.norm"),
    (r"encoder\.layers\.(\d+)\.downsample\.linear", r"encoder.stages.\1.merging.project"),
    (r"encoder\.layers\.(\d+)\.blocks\.(\d+)", r"encoder.stages.\1.blocks.\2"),
    (r"attn\.blank_k", "attention.blank_key"),
    (r"attn\.blank_v", "attention.blank_value"),
    (r"attn\.q\b", "attention.query"),
    (r"attn\.kv\b", "attention.key_value"),
    (r"attn\.pos_embed", "attention.geometry"),
    (r"(blocks\.\d+)\.attn\.proj\b", r"\1.attention.project"),
    (r"(stages\.\d+\.blocks\.\d+)\.norm1", r"\1.attention_norm"),
    (r"(stages\.\d+\.blocks\.\d+)\.norm2", r"\1.mlp_norm"),
    (r"mlp\.fc1", "mlp.expand"),
    (r"mlp\.fc2", "mlp.contract"),
    (r"cross_attention_decoder\.input_proj\.(\d+)\.0", r"decoder.stages.\1.level_project"),
    (r"cross_attention_decoder\.input_proj\.(\d+)\.1", r"decoder.stages.\1.level_norm"),
    (r"cross_attention_decoder\.decoder_blocks\.(\d+)\.0", r"decoder.stages.\1"),
    (r"(self|cross)_attn\.shepard_power", r"\1_attention.power"),
    (r"(self|cross)_attn\.sampling_offsets", r"\1_attention.offsets"),
    (r"(self|cross)_attn\.attention_weights", r"\1_attention.weights"),
    (r"(self|cross)_attn\.value_proj", r"\1_attention.value"),
    (r"(self|cross)_attn\.output_proj", r"\1_attention.project"),
    (r"(decoder\.stages\.\d+)\.norm1", r"\1.self_norm"),
    (r"(decoder\.stages\.\d+)\.norm2", r"\1.cross_norm"),
    (r"(decoder\.stages\.\d+)\.norm3", r"\1.mlp_norm"),
    (r"(decoder\.stages\.\d+)\.linear1", r"\1.expand"),
    (r"(decoder\.stages\.\d+)\.linear2", r"\1.contract"),
    (r"decoder_pred_norm", "heads.res2.0"),
    (r"decoder_pred_head", "heads.res2.1"),
    (r"aux_head_(res\d)_norm", r"heads.\1.0"),
    (r"aux_head_(res\d)_head", r"heads.\1.1"),
    (r"aux_head_(res\d)\.(\d)", r"heads.\1.\2"),
]
_HEADS = re.compile(r"(decoder_pred_|aux_head_)")
_UNUSED = re.compile(r"\.downsample\.global_(norm|linear)\.")


@overload
def from_reference_state(
    state_dict: Mapping[str, Any], task: Literal["pretrain"] = "pretrain"
) -> AFFMAE: ...
@overload
def from_reference_state(
    state_dict: Mapping[str, Any], task: Literal["segment"]
) -> AFFSegmenter: ...
def from_reference_state(
    state_dict: Mapping[str, Any], task: Literal["pretrain", "segment"] = "pretrain"
) -> AFFMAE | AFFSegmenter:
    """Build a network from weights under the authors' parameter names.

    The shape of the network follows from the weights' shapes, except for what
    leaves no trace in them (neighbourhood, cluster size, merging ratio), where
    the published values hold.

    Parameters
    ----------
    state_dict : Mapping[str, Tensor or ndarray]
        Parameters by name. Two ``global_*`` layers of each merging are never
        used by the method and ignored.
    task : {"pretrain", "segment"}
        The network to build. Where both kinds of heads are present, those of
        segmentation are under ``seg.``.

    Returns
    -------
    AFFMAE or AFFSegmenter
        In training mode, on the CPU.

    Raises
    ------
    ValueError
        If the task is unknown, or parameters are missing, unknown or of
        another shape; the message names the first.
    """
    if task not in ("pretrain", "segment"):
        raise ValueError(f"task must be 'pretrain' or 'segment', got {task!r}")
    theirs = {name: _tensor(value) for name, value in state_dict.items()}
    theirs = {name: value for name, value in theirs.items() if not _UNUSED.search(name)}
    theirs = _choose_heads(theirs, task)
    ours = _join_layers({_translate(name): value for name, value in theirs.items()})
    if "decoder.query" not in ours:
        raise ValueError("these are no AFFMAE weights: the parameter masked_token is missing")
    ours["decoder.query"] = ours["decoder.query"].flatten()
    config, outputs = _infer_config(ours, task)
    model = AFFMAE(config) if task == "pretrain" else AFFSegmenter(config, outputs)
    _check_fit(model.state_dict(), ours)
    model.load_state_dict(ours)
    return model


def _tensor(value: Any) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    return tensor.detach().float()


def _choose_heads(state: dict[str, Tensor], task: str) -> dict[str, Tensor]:
    """Keep the task's heads where those of both tasks are present."""
    separate = {
        name.removeprefix("seg."): t for name, t in state.items() if name.startswith("seg.")
    }
    common = {name: t for name, t in state.items() if not name.startswith("seg.")}
    if task == "segment" and separate:
        common = {name: t for name, t in common.items() if not _HEADS.match(name)} | separate
    return common


def _translate(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _join_layers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make one layer of those that read the same tokens: theirs are separate."""
    joined = dict(state)

    def take(name: str) -> Tensor:
        joined.pop(name, None)
        if name not in state:
            raise ValueError(f"the parameter that becomes {name} is missing")
        return state[name]

    for name in state:
        if match := re.fullmatch(r"(.*\.attention\.)query\.(\w+)", name):
            start, kind = match.groups()
            query, both = take(name), take(f"{start}key_value.{kind}")
            # Head by head, its keys before its values.
            heads = len(state.get(f"{start}geometry.bias", both[:1]))
            key, value = both.unflatten(0, (heads, 2, -1)).unbind(1)
            joined[f"{start}query_key_value.{kind}"] = torch.cat(
                [query, key.flatten(0, 1), value.flatten(0, 1)]
            )
        elif match := re.fullmatch(r"(.*_attention\.)offsets\.(\w+)", name):
            start, kind = match.groups()
            joined[f"{start}sampling.{kind}"] = torch.cat(
                [take(name), take(f"{start}weights.{kind}")]
            )
    return joined


def _infer_config(state: Mapping[str, Tensor], task: str) -> tuple[ModelConfig, int]:
    """Read the network's shape off the weights; also the head's outputs a pixel."""

    def size(name: str, dim: int = 0) -> int:
        if name not in state:
            raise ValueError(f"the parameter that becomes {name} is missing")
        return state[name].shape[dim]

    def count(pattern: str) -> int:
        found = {m[1] for name in state if (m := re.match(pattern, name))}
        return len(found)

    stages = range(count(r"encoder\.stages\.(\d+)\.norm\."))
    blocks = [count(rf"encoder\.stages\.{s}\.blocks\.(\d+)\.") for s in stages]
    first = "encoder.stages.{}.blocks.0."
    channels = [size(f"encoder.stages.{s}.norm.weight") for s in stages]
    patch_size = 2 ** count(r"encoder\.patch_embedding\.convolutions\.(\d+)\.")
    in_channels = size("encoder.patch_embedding.convolutions.0.weight", 1)
    width = size("decoder.query")
    samples = size("decoder.stages.0.self_attention.sampling.bias")
    # The published decoder samples four points a head: two offsets and a weight each.
    heads = samples // (3 * ModelConfig.model_fields["decoder_points"].default)
    outputs, rest = divmod(size("heads.res2.1.bias"), patch_size**2)
    if rest or (task == "pretrain" and outputs != in_channels):
        raise ValueError(
            f"the prediction head has {size('heads.res2.1.bias')} outputs, which does not fit "
            f"patches of {patch_size} x {patch_size} x {in_channels}; is this the other task?"
        )
    config = ModelConfig.model_validate(
        {
            "in_channels": in_channels,
            "patch_size": patch_size,
            "channels": channels,
            "blocks": blocks,
            "heads": [size(first.format(s) + "attention.geometry.bias") for s in stages],
            "mlp_ratio": size(first.format(0) + "mlp.expand.bias") / channels[0],
            "decoder_width": width,
            "decoder_heads": heads,
            "decoder_hidden": size("decoder.stages.0.expand.bias"),
        }
    )
    return config, outputs


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"{len(missing)} parameters are missing, the first is {missing[0]}")
    if unknown := sorted(found.keys() - expected.keys()):
        raise ValueError(f"{len(unknown)} parameters are unknown, the first is {unknown[0]}")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"{name} should have shape {tuple(tensor.shape)}, found {tuple(found[name].shape)}"
            )
