"""Several processes compute what one does: gradients, statistics, validation, each case once."""

import multiprocessing
import os
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from hymunet import HyMUNet
from hymunet.errors import HyMUNetError
from hymunet.training.dataset import EpochSampler, RankBatches
from hymunet.training.lightning_module import SegmentationTask
from hymunet.training.options import TrainOptions
from hymunet.training.planning.plan import Settings
from hymunet.training.ranks import Ranks, joined, started_ranks
from hymunet.training.sync_norm import synchronise_norms
from tests.training.short_run import TOY

forks = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
SETTINGS = Settings(structures=2, activation="softmax", class_weights=(0.2, 1.0, 3.0))


def cases(count, size=32):
    """Images, labels and valid areas of very different sizes."""
    generator = torch.Generator().manual_seed(5)
    valid = torch.ones(count, size, size, dtype=torch.uint8)
    for i in range(count):
        valid[i, : 5 * i] = 0
    label = torch.randint(3, (count, size // 8, size // 8), generator=generator)
    return {
        "image": torch.randn(count, 3, size, size, generator=generator),
        "label": label.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8),
        "valid": valid,
        "index": torch.arange(count),
    }


def make_task(ranks):
    torch.manual_seed(3)
    network = HyMUNet(3, 3, activation="softmax", deep_supervision=True, **TOY)
    if ranks.size > 1:
        synchronise_norms(network, on_gpu=False)
    return SegmentationTask(network, SETTINGS, 4, ranks)


class Step(nn.Module):
    """A training step as the forward that DDP wraps, as Lightning does it."""

    def __init__(self, task):
        super().__init__()
        self.task = task

    def forward(self, batch):
        return self.task.training_step(batch, 0)


def one_step(ranks, batch):
    """Gradients and norms' statistics after a step, and the row of an epoch of it."""
    task = make_task(ranks)
    step = Step(task)
    if ranks.size > 1:
        step = nn.parallel.DistributedDataParallel(step, broadcast_buffers=False)
    task.on_train_epoch_start()
    step(batch).backward()
    task.on_train_batch_end(None, batch, 0)
    gradients = {name: p.grad for name, p in task.network.named_parameters()}
    return {"gradients": gradients, "buffers": dict(task.network.named_buffers()), "task": task}


def validated(ranks, task, everything, batch_size):
    """The row of an epoch whose validation part is `everything`."""
    task.on_validation_epoch_start()
    sampler = EpochSampler(len(everything["index"]), 0, shuffle=False)
    with torch.no_grad():
        for share in RankBatches(sampler, batch_size, False, ranks):
            picked = [index for _, index in share]
            task.validation_step({name: value[picked] for name, value in everything.items()}, 0)
    return task.epoch_row()


def as_rank(rank, size, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    ranks = Ranks(rank, size, rank, size)
    with joined(ranks, on_gpu=False):
        torch.save(results(ranks), folder / f"{rank}.pt")


def results(ranks):
    batch = {name: value[ranks.rank :: ranks.size] for name, value in cases(5).items()}
    step = one_step(ranks, batch)
    row = validated(ranks, step.pop("task"), cases(7), batch_size=2)
    return step | {"row": row}


@pytest.fixture(scope="module")
def by_one_and_by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    (folder / "port").write_text(str(store.port))
    context = multiprocessing.get_context("fork")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
        processes = [context.Process(target=as_rank, args=(r, 2, folder)) for r in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    parts = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return results(Ranks()), parts


@forks
def test_gradients_of_a_step_are_those_of_one_process(by_one_and_by_two):
    one, parts = by_one_and_by_two
    assert one["gradients"]
    for name, expected in one["gradients"].items():
        for part in parts:
            torch.testing.assert_close(part["gradients"][name], expected, atol=1e-5, rtol=1e-5)


@forks
def test_norms_follow_the_batch_of_all_processes(by_one_and_by_two):
    one, parts = by_one_and_by_two
    assert any(name.endswith("running_var") for name in one["buffers"])
    for name, expected in one["buffers"].items():
        for part in parts:
            torch.testing.assert_close(part["buffers"][name], expected, atol=1e-6, rtol=1e-6)


@forks
def test_losses_and_validation_are_those_of_one_process_uneven_last_batch_included(
    by_one_and_by_two,
):
    one, parts = by_one_and_by_two
    assert parts[0]["row"] == parts[1]["row"]
    assert parts[0]["row"] == pytest.approx(one["row"], abs=1e-6, rel=1e-6)


@pytest.mark.parametrize(("count", "batch_size", "size"), [(7, 2, 2), (7, 4, 3), (1, 4, 2)])
def test_each_sample_is_met_once_an_epoch_and_all_have_as_many_batches(count, batch_size, size):
    sampler = EpochSampler(count, seed=1, shuffle=True)
    shares = [list(RankBatches(sampler, batch_size, False, Ranks(r, size))) for r in range(size)]
    assert len({len(share) for share in shares}) == 1
    assert all(batch for share in shares for batch in share)
    batches = list(RankBatches(sampler, batch_size, False, Ranks()))
    for step, batch in enumerate(batches):
        met = [sample for share in shares for sample in share[step]]
        assert set(met) == set(batch)
        assert len(met) == max(len(batch), size)  # more only where a process had no share


def test_an_incomplete_batch_is_left_out_for_all():
    sampler = EpochSampler(7, seed=1, shuffle=True)
    for ranks in (Ranks(), Ranks(0, 2), Ranks(1, 2)):
        batches = list(RankBatches(sampler, 4, True, ranks))
        assert len(batches) == len(RankBatches(sampler, 4, True, ranks)) == 1
        assert len(batches[0]) == 4 // ranks.size


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0"}


def test_torchrun_and_srun_say_which_process_this_is(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    options = TrainOptions(devices=2, num_nodes=2)
    with pytest.raises(HyMUNetError, match="started by torchrun or srun"):
        started_ranks(options)
    assert started_ranks(replace(options, num_nodes=1)) is None
    with monkeypatch.context() as patch:
        for name, value in (TORCHRUN | {"MASTER_PORT": "2"}).items():
            patch.setenv(name, value)
        assert started_ranks(options) == Ranks(3, 4, 1, 2)
        with pytest.raises(HyMUNetError, match=r"4 processes .* --num-nodes 1 ask for 1"):
            started_ranks(TrainOptions())
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        os.environ |= {
            "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
            "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "1234567",
        }  # fmt: skip
        assert started_ranks(options) == Ranks(3, 4, 1, 2)
        assert os.environ["MASTER_ADDR"] == "gpu07"
        assert os.environ["MASTER_PORT"] == "19567"


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(HyMUNetError, match="a batch of 3 cannot be shared out among 4 processes"):
        TrainOptions(batch_size=3, devices=4)
    with pytest.raises(HyMUNetError, match="strategy fsdp slices the network among several"):
        TrainOptions(strategy="fsdp")
