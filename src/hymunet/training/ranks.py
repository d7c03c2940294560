"""Which of the processes of one training this is, and what they tell one another.

Processes are named as torchrun names them: RANK of WORLD_SIZE, LOCAL_RANK on its machine. Those
that srun starts are given the same names.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from hymunet.errors import HyMUNetError
from hymunet.training.options import TrainOptions

Value = TypeVar("Value")
_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# the first process may have a large data set to read while the others wait
_PATIENCE = timedelta(hours=12)
# how gloo and NCCL say that another process is gone
_LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "timed out",
         "nccl", "remote process", "socket")  # fmt: skip


class LostProcessError(HyMUNetError):
    """Another process of the training is gone."""


@dataclass(frozen=True)
class Ranks:
    """One process among those of a training; by default the only one.

    Args:
        rank: Its number, 0 the first, which alone writes files and speaks.
        size: How many there are.
        local_rank: Its number on its machine.
        local_size: How many there are on a machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def share(self, value: Value | None) -> Value:
        """What the first process has, on all of them."""
        values: list[Any] = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        """What each process has, on all of them, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over processes; without gradient."""
        if self.size == 1:
            return tensor
        summed = tensor.detach().clone()
        dist.all_reduce(summed)
        return summed


ALONE = Ranks()


def started_ranks(options: TrainOptions) -> Ranks | None:
    """This process among those that torchrun or srun started; None where it was started alone.

    Raises:
        HyMUNetError: If they are not as many as the options say.
    """
    _name_tasks_of_srun()
    if any(name not in os.environ for name in _NAMES):
        if options.num_nodes > 1:
            raise HyMUNetError(
                f"--num-nodes {options.num_nodes} needs a process for each device on each machine, "
                "started by torchrun or srun; docs/cluster-training.md shows both"
            )
        return None
    size, asked = int(os.environ["WORLD_SIZE"]), options.devices * options.num_nodes
    if size != asked:
        raise HyMUNetError(
            f"{size} processes were started for this training, and --devices {options.devices} "
            f"--num-nodes {options.num_nodes} ask for {asked}: give --devices (processes on a "
            "machine) and --num-nodes (machines) as torchrun or srun were given them"
        )
    return Ranks(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]), options.devices)


@contextmanager
def joined(ranks: Ranks, on_gpu: bool) -> Iterator[None]:
    """The processes of a training know one another within the block.

    Raises:
        LostProcessError: If another process is gone.
        HyMUNetError: If a device is missing.
    """
    if ranks.size == 1:
        yield
        return
    if on_gpu:
        if torch.cuda.device_count() <= ranks.local_rank:
            raise HyMUNetError(
                f"process {ranks.local_rank} of this machine sees {torch.cuda.device_count()} "
                "CUDA devices, and each process takes the one of its number: give a smaller "
                "--devices, or let every process see all devices of its machine"
            )
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        raise LostProcessError(
            f"process {ranks.rank} of {ranks.size} lost the others ({_first_line(error)}): one of "
            "them ended. The same command goes on from the last whole checkpoint"
        ) from error
    # not where something failed: taking leave would wait for who is gone
    dist.destroy_process_group()


def _name_tasks_of_srun() -> None:
    """Gives the tasks of a SLURM step the names that torchrun would have given them."""
    task = os.environ.get
    if "RANK" in os.environ or int(task("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    from lightning.fabric.plugins.environments import SLURMEnvironment

    nodes = task("SLURM_STEP_NODELIST") or task("SLURM_NODELIST", "127.0.0.1")
    job = int(task("SLURM_JOB_ID", "0"))
    os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    os.environ.setdefault("MASTER_PORT", str(15000 + job % 10000))  # the same for all of a job
    os.environ["RANK"] = task("SLURM_PROCID", "0")
    os.environ["WORLD_SIZE"] = task("SLURM_STEP_NUM_TASKS", "1")
    os.environ["LOCAL_RANK"] = task("SLURM_LOCALID", "0")
    os.environ["GROUP_RANK"] = task("SLURM_NODEID", "0")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
