import json
import math
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_affmae.config import NormalizationConfig
from napari_affmae.data import NormalizationRecord
from napari_affmae.engine import import_checkpoint, load_model, read_metadata
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.model_files import build_network, load_weights, model_bytes
from napari_affmae.errors import CheckpointError
from napari_affmae.model import AFFMAE, AFFSegmenter, preset


@pytest.fixture
def metadata():
    return ModelMetadata(
        kind="pretrain",
        model=preset("nano"),
        normalization=NormalizationRecord(config=NormalizationConfig(), statistics={}),
        crop=64,
    )


def test_a_model_file_says_everything(tmp_path, metadata):
    module = AFFMAE(metadata.model)
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_bytes(module, metadata))
    loaded, found = load_model(path)
    assert found == metadata
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_a_run_folder_stands_for_its_model(finetuned, pretrained):
    assert isinstance(load_model(finetuned[0])[0], AFFSegmenter)
    assert isinstance(load_model(pretrained[0])[0], AFFMAE)
    assert read_metadata(finetuned[0]).normalization == load_model(finetuned[0])[1].normalization


def test_weights_that_do_not_fit_are_named_with_their_shapes(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_bytes(AFFMAE(metadata.model), metadata))
    other = AFFMAE(metadata.model.model_copy(update={"in_channels": 3}))
    with pytest.raises(CheckpointError, match=r"convolutions.0.weight has shape \(24, 1, 3, 3\) "):
        load_weights(other, path)


def test_missing_and_left_over_weights_are_named(tmp_path, metadata):
    module = AFFMAE(metadata.model)
    state = module.state_dict()
    first = next(iter(state))
    tensors = {name: tensor for name, tensor in state.items() if name != first}
    save_file({**tensors, "strange": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=f"{first}.* is missing; strange is not part"):
        load_weights(module, tmp_path / "x.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(path)


def test_a_truncated_file_is_named(tmp_path, pretrained):
    whole = (pretrained[0] / "model.safetensors").read_bytes()
    path = tmp_path / "short.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"short\.safetensors"):
        load_model(path)


def test_foreign_safetensors_are_told_how_to_come_in(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="import-checkpoint"):
        load_model(tmp_path / "x.safetensors")


@pytest.mark.parametrize("header", ["{cut off", "{}", "7"])
def test_a_strange_header_is_named(tmp_path, header):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {"napari-affmae": header})
    with pytest.raises(CheckpointError, match="does not know"):
        read_metadata(tmp_path / "x.safetensors")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the model"):
        load_model(tmp_path / "nothing.safetensors")


def test_an_empty_folder_has_no_model(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model"):
        load_model(tmp_path)


def changed(path, tensors=None, **header):
    """Rewrite parts of a model file's header, and some of its tensors."""
    with safe_open(path, "pt") as opened:
        said = json.loads(opened.metadata()["napari-affmae"])
    for name, value in header.items():
        said[name] = {**said[name], **value} if isinstance(value, dict) else value
    save_file({**load_file(path), **(tensors or {})}, path, {"napari-affmae": json.dumps(said)})
    return path


@pytest.fixture
def segmenter(tmp_path, finetuned):
    return shutil.copy(finetuned[0] / "model.safetensors", tmp_path / "m.safetensors")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e5m2])
def test_weights_that_are_not_finite_are_refused(segmenter, value, dtype):
    name = "heads.res2.1.bias"
    tensor = load_file(segmenter)[name]
    tensor[1] = value
    changed(segmenter, {name: tensor.to(dtype)})
    with pytest.raises(CheckpointError, match=rf"m\.safetensors are not finite numbers: {name}"):
        load_model(segmenter)


def test_weights_of_whole_numbers_are_refused(segmenter):
    name = "heads.res2.1.bias"
    changed(segmenter, {name: load_file(segmenter)[name].to(torch.int32)})
    with pytest.raises(CheckpointError, match=name):
        load_model(segmenter)


CLASSES = [{"value": value, "name": str(value), "color": "#ffffff"} for value in (0, 1, 2, 3)]


@pytest.mark.parametrize(
    "header",
    [
        {"crop": 10**6},
        {"crop": -64},
        {"classes": CLASSES[:1]},
        {"classes": CLASSES[:3]},
        {"classes": [*CLASSES[:3], {**CLASSES[2], "name": "again"}]},
        {"classes": [*CLASSES[:3], {**CLASSES[3], "value": 2**40}]},
        {"pixel_size": [0, 1]},
        {"pixel_size": [-1, -1]},
        {"model": {"channels": [1 << 40] * 4, "heads": [1] * 4}},
        {"model": {"channels": [3 << 20, 6 << 20, 8 << 20, 12 << 20]}},
        {"model": {"channels": [-48, 96, 128, 192]}},
        {"model": {"heads": [0, 6, 8, 12]}},
        {"model": {"heads": [-3, 6, 8, 12]}},
        {"model": {"blocks": [10**12, 1, 3, 1]}},
        {"model": {"blocks": [-1, 1, 3, 1]}},
        {"model": {"mlp_ratio": 1e300}},
        {"model": {"mlp_ratio": 1e-9}},
        {"model": {"neighbourhood": 10**9}},
        {"model": {"cluster_size": 10**9}},
        {"model": {"patch_size": 2**200}},
        {"model": {"in_channels": 10**9}},
        {"model": {"decoder_points": 10**9}},
        {"model": {"decoder_hidden": 10**12}},
    ],
)
def test_impossible_settings_are_refused_before_memory_is_taken(segmenter, header, monkeypatch):
    def build(metadata):
        if torch.empty(0).device.type != "meta":
            pytest.fail("took memory")
        return build_network(metadata)

    changed(segmenter, **header)
    monkeypatch.setattr("napari_affmae.engine.store.model_files.build_network", build)
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        load_model(segmenter)


@pytest.mark.parametrize(
    "numbers",
    [{"std": [0.0]}, {"std": [-1.0]}, {"mean": [math.nan]}, {"low": [math.inf]}, {"low": [0, 0]}],
)
def test_impossible_statistics_are_refused(segmenter, numbers):
    statistics = {name: [1.0] for name in ("low", "high", "fill", "mean", "std")}
    changed(segmenter, normalization={"statistics": {"01": {**statistics, **numbers}}})
    with pytest.raises(CheckpointError, match=r"m\.safetensors .*normalization|01"):
        load_model(segmenter)


def test_names_of_images_that_are_no_unicode_come_back(tmp_path, metadata):
    name = os.fsdecode(b"caf\xe9.tif")
    said = metadata.model_copy(update={"training": {"sources": [name]}})
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_bytes(AFFMAE(metadata.model), said))
    assert read_metadata(path).training["sources"] == [name]


@pytest.fixture(scope="module")
def golden(request):
    folder = request.config.rootpath / "tests" / "model" / "golden"
    weights = {}
    for path in sorted(folder.glob("weights*.npz")):
        weights |= dict(np.load(path))
    return {name: torch.from_numpy(value) for name, value in weights.items()}


WRAPPINGS = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"lr": 0.1}},
    "parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_reference_checkpoints_come_in(tmp_path, golden, wrapping):
    torch.save(WRAPPINGS[wrapping](golden), tmp_path / "authors.pth")
    import_checkpoint(tmp_path / "authors.pth", tmp_path / "out" / "model.safetensors")
    module, metadata = load_model(tmp_path / "out" / "model.safetensors")
    assert metadata.kind == "pretrain"
    ours = module.state_dict()["encoder.patch_embedding.convolutions.0.weight"]
    assert torch.equal(ours, golden["encoder.patch_embed.projs.0.weight"])


def test_reference_segmenters_come_in_from_safetensors(tmp_path, golden):
    save_file(golden, tmp_path / "authors.safetensors")
    out = tmp_path / "model.safetensors"
    import_checkpoint(tmp_path / "authors.safetensors", out, task="segment")
    module, metadata = load_model(out)
    assert isinstance(module, AFFSegmenter)
    assert len(metadata.classes) == module.num_classes == 3
    assert torch.equal(load_file(out)["heads.res2.1.bias"], golden["seg.decoder_pred_head.bias"])


class Malicious:
    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint was run",))


def test_our_own_models_need_no_import(tmp_path, pretrained):
    with pytest.raises(CheckpointError, match=r"already.*use it as it is"):
        import_checkpoint(pretrained[0] / "model.safetensors", tmp_path / "m.safetensors")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"model": Malicious()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"objects \(.*Fail\), .*any program") as raised:
        import_checkpoint(tmp_path / "evil.pth", tmp_path / "model.safetensors")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("content", [{"a": torch.zeros(2)}, [torch.zeros(2)], {}])
def test_other_networks_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        import_checkpoint(tmp_path / "other.pth", tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({"a": 1}), b"PK\x03\x04 cut"])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.pth .*; ") as raised:
        import_checkpoint(tmp_path / "other.pth", tmp_path / "model.safetensors")
    assert "\n" not in str(raised.value)
