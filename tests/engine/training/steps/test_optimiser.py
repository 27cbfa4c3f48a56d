import numpy as np
import pytest
import torch
from torch import nn

from napari_affmae.engine.training.class_weights import class_weights
from napari_affmae.engine.training.steps.optimiser import (
    layer_scales,
    load_state_tensors,
    make_optimiser,
    state_tensors,
)
from napari_affmae.errors import CheckpointError
from napari_affmae.model import AFFSegmenter, preset


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def one(name):
    return 1.0


def groups_by_name(module, optimiser):
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {
        names[parameter]: group for group in optimiser.param_groups for parameter in group["params"]
    }


def test_vectors_do_not_decay():
    module = small_network()
    groups = groups_by_name(module, make_optimiser(module, (0.9, 0.95), 0.05, one))
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "0.weight": 0.05,
        "0.bias": 0,
        "1.weight": 0,
        "1.bias": 0,
        "2.weight": 0.05,
        "2.bias": 0,
    }


def test_groups_have_their_scale():
    module = small_network()
    optimiser = make_optimiser(
        module, (0.9, 0.95), 0.05, lambda name: 0.5 if name.startswith("0") else 1.0
    )
    scales = {name: group["scale"] for name, group in groups_by_name(module, optimiser).items()}
    assert scales["0.weight"] == scales["0.bias"] == 0.5
    assert scales["2.weight"] == 1.0


def train(module, optimiser, steps):
    for group in optimiser.param_groups:
        group["lr"] = 0.01
    torch.manual_seed(steps)
    for _ in range(steps):
        module(torch.randn(5, 3)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()


def test_state_comes_back_by_name():
    module = small_network()
    optimiser = make_optimiser(module, (0.9, 0.95), 0.05, one)
    train(module, optimiser, 3)
    tensors = {key: tensor.clone() for key, tensor in state_tensors(module, optimiser).items()}
    assert set(tensors) >= {"0.weight/exp_avg", "2.bias/exp_avg_sq", "1.weight/step"}
    other = small_network()
    other.load_state_dict(module.state_dict())
    restored = make_optimiser(other, (0.9, 0.95), 0.05, one)
    load_state_tensors(other, restored, tensors)
    train(module, optimiser, 2)
    train(other, restored, 2)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_state_of_another_network_is_refused():
    module = small_network()
    optimiser = make_optimiser(module, (0.9, 0.95), 0.05, one)
    with pytest.raises(CheckpointError, match="'strange'"):
        load_state_tensors(module, optimiser, {"strange/exp_avg": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"exp_avg of shape \(9,\) for '0.weight'"):
        load_state_tensors(module, optimiser, {"0.weight/exp_avg": torch.zeros(9)})


def test_layer_decay_by_block():
    config = preset("nano").model_copy(update={"blocks": (2, 1, 1, 1)})
    module = AFFSegmenter(config, 2)
    scales = layer_scales(module, 0.5)
    expected = {
        "encoder.patch_embedding.norm.weight": 0.5**5,
        "encoder.stages.0.blocks.0.attention.query_key_value.weight": 0.5**5,
        "encoder.stages.0.blocks.1.mlp.expand.bias": 0.5**4,
        "encoder.stages.0.merging.project.weight": 0.5**4,
        "encoder.stages.0.norm.weight": 0.5**4,
        "encoder.stages.1.blocks.0.attention.blank_key": 0.5**3,
        "encoder.stages.3.blocks.0.mlp_norm.weight": 0.5,
        "encoder.stages.3.norm.bias": 0.5,
    }
    assert {name: scales[name] for name in expected} == expected
    names = {name for name, _ in module.named_parameters()}
    assert set(scales) == {name for name in names if name.startswith("encoder.")}


def test_rare_classes_weigh_more():
    weights = class_weights("frequency", np.array([900, 100, 0]))
    assert weights[1] / weights[0] == pytest.approx(3)
    assert weights[2] == weights[1]
    assert weights.mean() == pytest.approx(1)


def test_given_and_equal_weights():
    assert class_weights("equal", np.array([1, 2])) is None
    assert class_weights((1.0, 3.0), np.array([1, 2])).tolist() == [1, 3]


@pytest.mark.parametrize("rule", [(1.0,), (1.0, -1.0)])
def test_weights_that_do_not_fit(rule):
    with pytest.raises(ValueError, match="2 numbers"):
        class_weights(rule, np.array([1, 2]))
