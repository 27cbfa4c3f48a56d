"""Several processes train one network, connected by gloo."""

import json
import socket
from dataclasses import dataclass

import pytest
import torch

from napari_affmae.config import FinetuneConfig, NormalizationConfig
from napari_affmae.data import NormalizationRecord
from napari_affmae.data.sources.source import ArraySource
from napari_affmae.engine import finetune, read_metrics
from napari_affmae.engine.compute.distributed import JoinedTeam, Team
from napari_affmae.engine.compute.seeds import Stream, derived_seed
from napari_affmae.engine.store.checkpoints import list_checkpoints
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.model_files import model_bytes
from napari_affmae.engine.training.steps.batch import BatchPlan
from napari_affmae.errors import DataError, DeviceUnavailableError
from napari_affmae.model import AFFMAE, preset

# Of sums in float32 in another order, after a few updates of the weights.
NOISE = 1e-4
NOTHING = {
    "RESUME": False,
    "STOP_AFTER": None,
    "KILL_AFTER": None,
    "MOST_CROPS": None,
    "DAMAGED": False,
}


@dataclass(frozen=True)
class Told:
    """What a process told, and how it ended."""

    events: list
    ending: str
    code: int

    def steps(self, kind="StepDone"):
        return [step for name, step, _ in self.events if name == kind]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A network without dropout, whose random numbers depend on how a batch is split."""
    torch.manual_seed(0)
    shape = preset("nano").model_copy(update={"drop_path": 0.0, "decoder_dropout": 0.0})
    metadata = ModelMetadata(
        kind="pretrain",
        model=shape,
        normalization=NormalizationRecord(config=NormalizationConfig(), statistics={}),
        crop=64,
    )
    path = tmp_path_factory.mktemp("start") / "model.safetensors"
    path.write_bytes(model_bytes(AFFMAE(shape), metadata))
    return path


@pytest.fixture(scope="module")
def train(start, start_script):
    """Train in processes, of which each may have variables of its own."""

    def run(folder, size, kind="pretrain", config=None, each=None, **variables):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        processes, outs = [], []
        for rank in range(size):
            outs.append(folder / f"told_{rank}.json")
            outs[-1].unlink(missing_ok=True)
            own = NOTHING | variables | (each or {}).get(rank, {})
            processes.append(
                start_script(
                    "train_together.py",
                    RANK=rank,
                    SIZE=size,
                    PORT=port,
                    KIND=kind,
                    # Whatever a helper would write, it would write to another place.
                    RUN=str(folder / ("helper" if rank else "run")),
                    START=str(start),
                    CONFIG=config or {},
                    OUT=str(outs[-1]),
                    **own,
                )
            )
        told = []
        for process, out in zip(processes, outs, strict=True):
            process.join()
            content = json.loads(out.read_text()) if out.exists() else {"events": [], "ending": ""}
            told.append(Told(**content, code=process.exitcode))
        return told

    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory, train):
    """The losses of each kind of training in one process."""
    measured = {}
    for kind in ("pretrain", "finetune"):
        folder = tmp_path_factory.mktemp(kind)
        (told,) = train(folder, 1, kind)
        assert told.ending == "end"
        measured[kind] = losses(folder)
    return measured


def losses(folder):
    return {
        (line["event"], line["step"]): line["loss"]
        for line in read_metrics(folder / "run")
        if line["event"] in {"step", "validation"}
    }


def last_checkpoint(folder):
    return list_checkpoints(folder / "run" / "checkpoints")[-1]


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_two_processes_learn_what_one_learns_and_the_first_alone_writes(
    tmp_path, train, alone, kind
):
    first, helper = train(tmp_path, 2, kind)
    assert (first.ending, helper.ending) == ("end", "end")
    assert [step for event, step in alone[kind] if event == "step"] == [1, 2, 3, 4, 5]
    assert losses(tmp_path) == pytest.approx(alone[kind], rel=NOISE)
    assert helper.steps("HelperStep") == [0, 1, 2, 3, 4, 5]
    assert not helper.steps()
    assert not (tmp_path / "helper").exists()


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_killed_run_goes_on_with_another_number_of_processes(
    tmp_path, train, alone, before, after
):
    often = {"checkpoint_minutes": 1e-9}
    told = train(tmp_path, before, config=often, each={0: {"KILL_AFTER": 3}})
    assert told[0].code == -9
    assert 1 <= last_checkpoint(tmp_path) <= 3
    # A helper reads the record of the run that goes on, where the first process finds it.
    (tmp_path / "helper").symlink_to(tmp_path / "run")
    told = train(tmp_path, after, config=often, RESUME=True)
    assert {process.ending for process in told} == {"end"}
    assert losses(tmp_path) == pytest.approx(alone["pretrain"], rel=NOISE)


def test_memory_that_runs_out_in_one_process_makes_all_go_on_in_smaller_parts(
    tmp_path, train, alone
):
    first, helper = train(tmp_path, 2, each={1: {"MOST_CROPS": 1}})
    assert (first.ending, helper.ending) == ("end", "end")
    assert first.steps("MicroBatchHalved") == [1]
    assert losses(tmp_path) == pytest.approx(alone["pretrain"], rel=NOISE)


def test_an_error_in_one_process_ends_all_and_is_told(tmp_path, train):
    first, helper = train(tmp_path, 2, each={1: {"MOST_CROPS": 0}})
    assert helper.ending.startswith("OutOfMemoryError: step 1 failed with a single crop")
    assert first.ending.startswith("OtherProcessError: process 1 of 2 (")
    assert "step 1 failed with a single crop" in first.ending


def test_an_error_of_one_process_before_the_first_step_ends_all(tmp_path, train):
    first, helper = train(tmp_path, 2, "finetune", each={1: {"DAMAGED": True}})
    assert helper.ending.startswith("DataError: ")
    assert first.ending.startswith("OtherProcessError: process 1 of 2 (")
    assert helper.ending.removeprefix("DataError: ") in first.ending


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_stopped_stops_all_after_the_same_step(tmp_path, train, rank):
    told = train(tmp_path, 2, each={rank: {"STOP_AFTER": 3}})
    assert told[rank].ending == "end"
    assert told[1 - rank].ending.startswith("OtherStoppedError: ")
    assert told[0].steps()[-1] == told[1].steps("HelperStep")[-1] == 3
    assert last_checkpoint(tmp_path) == 3


def test_a_process_that_is_killed_leaves_no_other_waiting(tmp_path, train):
    first, helper = train(tmp_path, 2, each={1: {"KILL_AFTER": 2}})
    assert helper.code == -9
    assert "lost the connection to another one" in first.ending
    assert last_checkpoint(tmp_path) == 2


def test_a_time_is_over_for_all_after_the_same_step(tmp_path, train):
    first, helper = train(tmp_path, 2, config={"steps": None, "minutes": 0.01})
    assert (first.ending, helper.ending) == ("end", "end")
    assert first.steps()[-1] == helper.steps("HelperStep")[-1] > 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
@pytest.mark.parametrize(("precision", "noise"), [("fp32", 1e-3), ("fp16", 1e-2), ("bf16", 2e-2)])
def test_two_gpus_learn_what_one_learns(tmp_path, train, precision, noise):
    """With recorded steps, connected by NCCL."""
    measured = []
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        told = train(folder, size, config={"device": "cuda", "precision": precision})
        assert {process.ending for process in told} == {"end"}
        measured.append(losses(folder))
    assert measured[1] == pytest.approx(measured[0], rel=noise)


class _Several(JoinedTeam):
    """The second of two processes, not connected."""

    def __init__(self):
        self.rank, self.size, self._local_rank, self._local_size = 1, 2, 1, 2


class _Painted(ArraySource):
    def revision(self, plane):
        return 0


def test_labels_that_may_change_are_for_one_process(tmp_path, image, volume):
    painted = _Painted(volume[1], axes="ZYX", name="painted")
    config = FinetuneConfig(crop=64, batch=2, steps=1, device="cpu")
    with pytest.raises(DataError, match="labels painted can change"):
        list(finetune([(image, painted)], config, tmp_path, team=_Several()))


@pytest.mark.parametrize("batch", [5, 1])
def test_a_batch_that_cannot_be_split_is_refused_with_sizes_that_can(batch):
    with pytest.raises(ValueError, match="cannot be split evenly over 2 devices") as refused:
        BatchPlan(batch, 1).split(2)
    assert ("a batch of 4 or 6" if batch == 5 else "a batch of 2,") in str(refused.value)


def test_parts_are_those_of_a_share():
    plan = BatchPlan(8, 8).split(2)
    assert (plan.share, plan.micro_batch, plan.accumulate) == (4, 4, 1)
    assert (plan.halved().micro_batch, plan.halved().accumulate) == (2, 2)


def test_each_process_takes_its_own_gpu_or_says_why_not(monkeypatch):
    team = _Several()
    assert team.device("cpu") == "cpu"
    with pytest.raises(ValueError, match="'cuda:0' is a single one"):
        team.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert team.device("auto") == team.device("cuda") == "cuda:1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceUnavailableError, match="of which there are 1"):
        team.device("auto")


def test_processes_draw_other_random_numbers_and_the_first_those_of_one_alone():
    seeds = [derived_seed(7, Stream.DROPOUT, 3, rank) for rank in range(3)]
    assert len(set(seeds)) == 3
    assert seeds[Team().rank] == derived_seed(7, Stream.DROPOUT, 3)
