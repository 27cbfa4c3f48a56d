import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile

from napari_affmae.cli import evaluate, main, stopping
from napari_affmae.data import open_source
from napari_affmae.engine import read_metadata, read_metrics
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.store.checkpoints import list_checkpoints
from napari_affmae.files import scratch_path

Cli = Callable[..., Any]
SMALL = ("--crop", "64", "--batch", "2", "--device", "cpu")


@pytest.fixture(scope="session")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining run, and a fine-tuning run that started from it."""
    root = tmp_path_factory.mktemp("runs")
    pretrain = ("pretrain", data / "images", "--out", root / "pretrain", "--steps", 3, *SMALL)
    finetune = ("finetune", data / "images", data / "labels", "--pretrained", root / "pretrain")
    finetune += ("--out", root / "finetune", "--steps", 3, *SMALL)
    finetune += ("--class", "0=inside", "--class", "1=membrane=#ff0000", "--class", "2=organelle")
    for words in (pretrain, finetune):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["napari-affmae", *map(str, words)])
            with pytest.raises(SystemExit) as exit_:
                main()
        assert not exit_.value.code
    return root


def test_training_leaves_models_that_know_their_classes(runs: Path) -> None:
    assert read_metadata(runs / "pretrain").kind == "pretrain"
    classes = read_metadata(runs / "finetune").classes
    assert [known.name for known in classes] == ["inside", "membrane", "organelle"]
    assert classes[1].color == "#ff0000"


def test_pretraining_goes_on_from_a_run(cli: Cli, runs: Path, data: Path, tmp_path: Path) -> None:
    words = ("pretrain", data / "images", "--out", tmp_path / "run", "--steps", 1, *SMALL)
    assert cli(*words, "--start", runs / "pretrain").code == 0
    assert read_metadata(tmp_path / "run").training["start"] == str(runs / "pretrain")


def test_pretraining_measures_its_features(cli: Cli, data: Path, tmp_path: Path) -> None:
    words = ("pretrain", data / "images", "--out", tmp_path / "run", "--steps", 1, *SMALL)
    probe = ("--probe-images", data / "images", "--probe-labels", data / "labels")
    result = cli(*words, *probe)
    assert result.code == 0
    assert "probe 0." in result.err
    assert "give both --probe-images and --probe-labels" in cli(*words, *probe[:2]).err


def test_grey_from_white_is_segmented_as_what_it_shows_and_told(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    grey = tifffile.imread(data / "images" / "a.tif")
    tifffile.imwrite(tmp_path / "black.tif", grey, photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", 255 - grey, photometric="miniswhite")
    words = (tmp_path / "black.tif", tmp_path / "white.tif", "--model", runs / "finetune")
    done = cli("segment", *words, "--device", "cpu", "--out", tmp_path / "out")
    assert done.code == 0
    results = [tifffile.imread(tmp_path / "out" / path.name) for path in words[:2]]
    np.testing.assert_array_equal(*results)
    assert done.err.count("0 is white in it") == 1
    assert "info: white.tif: 0 is white in it" in done.err


def test_channels_are_chosen(cli: Cli, runs: Path, data: Path, tmp_path: Path) -> None:
    colours = tmp_path / "colours.tif"
    grey = tifffile.imread(data / "images" / "a.tif")
    tifffile.imwrite(colours, np.stack([grey, 255 - grey, grey], -1), photometric="rgb")
    words = ("segment", colours, "--model", runs / "finetune", "--device", "cpu", "--out")
    assert "3 channels" in cli(*words, tmp_path / "all").err
    assert cli(*words, tmp_path / "one", "--channels", 2).code == 0
    assert cli("segment", data / "images" / "a.tif", *words[2:], tmp_path / "grey").code == 0
    results = [tifffile.imread(path) for path in sorted(tmp_path.glob("*/*.tif"))]
    np.testing.assert_array_equal(*results)
    assert "channels must be numbers" in cli(*words, tmp_path / "x", "--channels", "x").err


def test_rows_are_flipped_as_imod_shows_them(
    cli: Cli, runs: Path, data: Path, tmp_path: Path
) -> None:
    stack = tifffile.imread(data / "images" / "a.tif")
    mrcfile.write(tmp_path / "a.mrc", stack.view(np.int8))
    tifffile.imwrite(
        tmp_path / "upside_down.tif", stack.view(np.int8)[:, ::-1], photometric="minisblack"
    )
    words = ("--model", runs / "finetune", "--device", "cpu", "--out")
    flipped = cli("segment", tmp_path / "a.mrc", "--flip-rows", *words, tmp_path / "flipped")
    assert flipped.code == 0, flipped.err
    assert cli("segment", tmp_path / "upside_down.tif", *words, tmp_path / "plain").code == 0
    results = [tifffile.imread(path) for path in sorted(tmp_path.glob("*/*.tif"))]
    np.testing.assert_array_equal(*results)


def test_resuming_goes_on_to_a_longer_end(cli: Cli, data: Path, tmp_path: Path) -> None:
    words = ("pretrain", data / "images", "--out", tmp_path / "run", *SMALL)
    first = cli(*words, "--steps", 2)
    assert first.code == 0, first.err
    for part in ("device: CPU", "precision: fp32", "backend:", "pretrain: 2/2", "finished:"):
        assert part in first.err
    again = cli(*words, "--steps", 2)
    assert again.code == 1
    assert "--resume" in again.err
    longer = cli("pretrain", data / "images", "--out", tmp_path / "run", "--steps", 3, "--resume")
    assert longer.code == 0, longer.err
    steps = [m["step"] for m in read_metrics(tmp_path / "run") if m["event"] == "step"]
    assert steps == [1, 2, 3]


@pytest.fixture
def training(data: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A long run that has made steps."""
    words = ["pretrain", str(data / "images"), "--out", str(tmp_path / "run"), *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_affmae", *words, "--steps=10000", "--validation-steps=2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("pretrain: "):
            break
    yield process
    process.kill()
    process.wait()


def check_it_stopped(process: subprocess.Popen[str], run: Path) -> None:
    assert process.wait(60) == 130
    (*_, step) = list_checkpoints(run / "checkpoints")
    assert 0 < step < 10000


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_leaves_a_run_that_resumes(
    training: subprocess.Popen[str], tmp_path: Path, name: str
) -> None:
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip("a signal of Unix")
    training.send_signal(number)
    assert training.stderr is not None
    rest = training.stderr.read()
    training.stderr.close()
    check_it_stopped(training, tmp_path / "run")
    assert "go on with: napari-affmae pretrain" in rest
    assert "--resume" in rest
    assert "Traceback" not in rest


def test_a_closed_pipe_leaves_a_run_that_resumes(
    training: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert training.stderr is not None
    training.stderr.close()
    check_it_stopped(training, tmp_path / "run")


def test_segment_writes_stacks_of_the_same_names(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    done = cli("segment", data / "images", "--model", runs / "finetune", "--out", tmp_path)
    assert done.code == 0, done.err
    for name, planes in (("a.tif", 3), ("deep/b.tif", 2)):
        with tifffile.TiffFile(tmp_path / name) as file:
            labels = file.asarray()
            assert 'PhysicalSizeX="8.0"' in (file.ome_metadata or "")
        assert labels.shape == (planes, 80, 96)
        assert set(np.unique(labels)) <= {0, 1, 2}
        with open_source(tmp_path / name) as source:
            assert source.classes == read_metadata(runs / "finetune").classes
    assert len(list(tmp_path.rglob("*.*"))) == 2


def test_a_damaged_image_is_told_and_the_others_are_segmented(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    content = (data / "images" / "a.tif").read_bytes()
    middle = len(content) // 2
    broken = content[:middle] + bytes(2000) + content[middle + 2000 :]
    for name, whole in (("0.tif", content), ("1.tif", broken), ("2.tif", content)):
        (images / name).write_bytes(whole)
    words = ("segment", images, "--model", runs / "finetune", "--out", out)
    first = cli(*words)
    assert first.code == 1
    assert "1 of 3 images could not be segmented: 1.tif" in first.err
    assert sorted(path.name for path in out.iterdir()) == ["0.tif", "2.tif"]
    before = (out / "0.tif").stat().st_mtime_ns
    (images / "1.tif").write_bytes(content)
    again = cli(*words, "--skip-existing")
    assert again.code == 0, again.err
    assert "2 of 3 images have their results" in again.err
    assert sorted(path.name for path in out.iterdir()) == ["0.tif", "1.tif", "2.tif"]
    assert (out / "0.tif").stat().st_mtime_ns == before


def test_another_process_and_long_names_cost_one_image_each(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    content = (data / "images" / "a.tif").read_bytes()
    long = "x" * 246 + ".tif"
    for name in ("0.tif", "1.tif", long):
        (images / name).write_bytes(content)
    words = ("segment", images, "--model", runs / "finetune", "--out", out, "--probabilities")
    with PlaneFile(out / "0.tif", 1):
        done = cli(*words)
    assert done.code == 1
    assert f"another process is writing {out / '0.tif'}" in done.err
    assert "File name too long" in done.err
    assert f"2 of 3 images could not be segmented: 0.tif, {long}" in done.err
    assert sorted(path.name for path in out.iterdir()) == ["1.tif", "1_probabilities.tif"]
    assert cli(*words[:-1], "--skip-existing").code == 0
    assert sorted(path.name for path in out.glob("?.tif")) == ["0.tif", "1.tif"]
    assert (out / long).exists()


def test_parts_that_a_kill_left_beside_a_complete_result_go(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    words = ("segment", data / "images" / "a.tif", "--out", tmp_path, "--skip-existing")
    assert cli(*words, "--model", runs / "finetune").code == 0
    parts = scratch_path(tmp_path / "a.tif")
    (parts / "labels.zarr").mkdir(parents=True)
    assert cli(*words, "--model", runs / "finetune").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_only_results_of_this_model_and_these_settings_are_skipped(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    words = ("segment", data / "images" / "a.tif", "--out", tmp_path, "--skip-existing")
    model = ("--model", runs / "finetune")
    content = (runs / "finetune" / "model.safetensors").read_bytes()
    (tmp_path / "other.safetensors").write_bytes(content.replace(b"nano", b"nona", 1))
    other = ("--model", tmp_path / "other.safetensors")
    assert cli(*words, *model).code == 0
    before = (tmp_path / "a.tif").stat().st_mtime_ns
    again = cli(*words, *model)
    assert again.code == 0
    assert "1 of 1 images have their results" in again.err
    for change, reason in (
        ((*model, "--overlap", 0.5), "overlap"),
        ((*model, "--precision", "bf16"), "precision"),
        (other, "model"),
    ):
        refused = cli(*words, *change)
        assert refused.code == 2
        assert f"a.tif is not skipped: it was made with another {reason}" in refused.err
        assert "--overwrite" in refused.err
    assert (tmp_path / "a.tif").stat().st_mtime_ns == before
    assert cli(*words, *model, "--overlap", 0.5, "--overwrite").code == 0
    assert (tmp_path / "a.tif").stat().st_mtime_ns > before


def test_a_result_that_appears_meanwhile_stays(
    cli: Cli, data: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = PlaneFile.__enter__

    def late(file: PlaneFile) -> PlaneFile:
        (tmp_path / "a.tif").write_text("theirs")
        return enter(file)

    monkeypatch.setattr(PlaneFile, "__enter__", late)
    words = ("segment", data / "images" / "a.tif", "--model", runs / "finetune")
    done = cli(*words, "--out", tmp_path)
    assert done.code == 1
    assert "complete, perhaps by another process meanwhile" in done.err
    assert (tmp_path / "a.tif").read_text() == "theirs"


def test_a_volume_goes_on_and_is_skipped_once_it_is_complete(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    words = ("segment", data / "images" / "a.tif", "--model", runs / "finetune", "--probabilities")
    done = cli(*words, "--out", tmp_path / "a.zarr")
    assert done.code == 0, done.err
    cli(*words, "--out", tmp_path / "a.tif")
    labels = open_source(tmp_path / "a.zarr")
    assert labels.pixel_size == (8.0, 8.0)
    stack = np.stack([labels.read(plane)[0] for plane in range(3)])
    np.testing.assert_array_equal(stack, tifffile.imread(tmp_path / "a.tif"))

    refused = cli(*words, "--out", tmp_path / "a.zarr")
    assert refused.code == 2
    assert "a.zarr exists" in refused.err
    skipped = cli(*words, "--out", tmp_path / "a.zarr", "--skip-existing")
    assert "1 of 1 images have their results" in skipped.err
    finer = (*words, "--out", tmp_path / "a.zarr", "--probability-type", "float16")
    changed = cli(*finer, "--skip-existing", "--overwrite")
    assert "is not skipped: it was made with another choice of probabilities" in changed.err
    found = open_source(tmp_path / "a_probabilities.zarr").read(1)
    assert found.dtype == np.float16
    exact = tifffile.imread(tmp_path / "a_probabilities.tif")[1]
    np.testing.assert_array_equal(found, exact.astype(np.float16))
    assert cli(*words, "--out", tmp_path / "a.zarr", "--overwrite").code == 0

    ledger = tmp_path / "a.zarr" / "0" / "done"
    ledger.write_bytes(ledger.read_bytes()[:-1] + bytes(1))
    (tmp_path / "a.zarr" / "0" / "c" / "2" / "0" / "0").unlink()
    other = cli(*words, "--out", tmp_path / "a.zarr", "--overlap", 0.5)
    assert other.code == 1
    assert "a.zarr was begun with another overlap" in other.err
    on = cli(*words, "--out", tmp_path / "a.zarr")
    assert on.code == 0, on.err
    np.testing.assert_array_equal(open_source(tmp_path / "a.zarr").read(2)[0], stack[2])
    assert cli(*words, "--out", tmp_path / "a.zarr", "--overlap", 0.5, "--overwrite").code == 0


def test_a_volume_holds_one_image(cli: Cli, data: Path, runs: Path, tmp_path: Path) -> None:
    words = ("segment", data / "images", "--model", runs / "finetune", "--out")
    refused = cli(*words, tmp_path / "a.zarr")
    assert refused.code == 2
    assert "a.zarr holds one image, and there are 2" in refused.err


def test_probabilities_agree_with_the_labels(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.tif"
    words = ("segment", data / "images" / "a.tif", "--model", runs / "finetune", "--out", out)
    done = cli(*words, "--probabilities")
    assert done.code == 0, done.err
    probabilities = tifffile.imread(tmp_path / "result_probabilities.tif")
    assert probabilities.shape == (3, 3, 80, 96)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(1), tifffile.imread(out))


def test_evaluate_counts_what_segment_writes(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    model = ("--model", runs / "finetune")
    cli("segment", data / "images", *model, "--out", tmp_path)
    names = ("a.tif", "deep/b.tif")
    label = np.concatenate([tifffile.imread(data / "labels" / name).ravel() for name in names])
    predicted = np.concatenate([tifffile.imread(tmp_path / name).ravel() for name in names])
    done = cli("evaluate", data / "images", data / "labels", *model, "--json")
    assert done.code == 0, done.err
    scores = json.loads(done.out)
    ious = []
    for value, name in enumerate(("inside", "membrane", "organelle")):
        both = np.sum((label == value) & (predicted == value))
        either = np.sum((label == value) | (predicted == value))
        ious.append(both / either)
        assert scores["classes"][name]["iou"] == pytest.approx(both / either)
        assert scores["classes"][name]["dice"] == pytest.approx(2 * both / (both + either))
    assert scores["mean_iou"] == pytest.approx(np.mean(ious))
    table = cli("evaluate", data / "images", data / "labels", *model).out
    assert f"{scores['mean_iou']:.3f}" in table
    assert "membrane" in table


def test_results_are_replaced_only_on_demand_and_images_never(
    cli: Cli, data: Path, runs: Path, tmp_path: Path
) -> None:
    words = ("segment", data / "images" / "a.tif", "--model", runs / "finetune", "--out", tmp_path)
    assert cli(*words).code == 0
    before = (tmp_path / "a.tif").stat().st_mtime_ns
    refused = cli(*words)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert (tmp_path / "a.tif").stat().st_mtime_ns == before
    assert cli(*words, "--overwrite").code == 0
    assert (tmp_path / "a.tif").stat().st_mtime_ns > before
    content = (data / "images" / "a.tif").read_bytes()
    onto = ("segment", data / "images", "--model", runs / "finetune", "--out", data / "images")
    assert cli(*onto, "--overwrite").code == 2
    assert (data / "images" / "a.tif").read_bytes() == content


def test_info_shows_machine_run_model_and_images(cli: Cli, data: Path, runs: Path) -> None:
    expected = (
        ((), ("torch", "CPU", "auto takes")),
        ((runs / "finetune",), ("kind", "finetune", "step 3", "1 membrane")),
        ((runs / "pretrain" / "model.safetensors",), ("fine-tuning", "widths", "64 px")),
        ((data / "images",), ("deep/b.tif", "80 x 96", "uint8", "8 x 8 nm")),
    )
    for words, parts in expected:
        done = cli("info", *words)
        assert done.code == 0, done.err
        for part in parts:
            assert part in done.out


@pytest.mark.skipif(os.name == "nt", reason="folders are made unreadable differently there")
def test_a_broken_image_is_named_and_left_out_of_pretraining(
    cli: Cli, data: Path, tmp_path: Path
) -> None:
    whole = (data / "images" / "a.tif").read_bytes()
    (tmp_path / "good.tif").write_bytes(whole)
    (tmp_path / "broken.tif").write_bytes(whole[:200])
    words = ("pretrain", tmp_path, "--out", tmp_path / "run", "--steps", 1, *SMALL)
    done = cli(*words)
    assert done.code == 0, done.err
    assert "broken.tif" in done.err


def test_a_model_is_exported_for_other_programs(cli: Cli, runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "package.zip"
    words = ("export", runs / "finetune", "--out", target, "--no-graphs")
    done = cli(*words, "--format", "bioimageio", "--author", "Ada")
    assert done.code == 0, done.err
    assert f"wrote {target}" in done.err.replace("\n", "")
    assert "no licence (--license)" in done.err
    with zipfile.ZipFile(target) as package:
        assert "bioimageio.yaml" in package.namelist()
    for wrong, reason in (
        (words, "--overwrite"),
        ((*words, "--overwrite", "--license", "mine"), "SPDX"),
        (("export", tmp_path / "none", "--out", target), "does not exist"),
        (("export", runs / "finetune", "--out", tmp_path / "a.onnx"), ".zip"),
    ):
        done = cli(*wrong)
        assert done.code == 2
        assert reason in done.err
    done = cli("export", runs / "pretrain", "--out", tmp_path / "b.zip")
    assert done.code == 1
    assert "fine-tune it first" in done.err


def test_evaluation_stops_where_nobody_reads_its_progress(
    cli: Cli, runs: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: Any) -> None:
        raise BrokenPipeError

    words = ("evaluate", data / "images", data / "labels", "--model", runs / "finetune")
    monkeypatch.setattr(evaluate.Reporter, "show", closed)
    monkeypatch.setattr(stopping, "close_output", lambda: None)
    result = cli(*words, "--device", "cpu")
    assert (result.code, result.out) == (130, "")


def test_results_that_nobody_reads_are_no_error(data: Path) -> None:
    words = [sys.executable, "-m", "napari_affmae", "info", str(data / "images")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 130
