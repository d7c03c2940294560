"""`train --devices 2`, torchrun, srun: the run of one process; a lost process ends it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hymunet.data.phantoms import write_phantoms

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc"),
]
MINUTE = 60
OPTIONS = ["--image-size", "32", "--batch-size", "5", "--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYMUNET_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            patch.delenv(name, raising=False)
        # 3 cases for validation: a process has one less
        yield write_phantoms(folder / "phantoms", 20, size=(40, 48))


def command(data, output, *more, before=("-m", "hymunet.cli")):
    words = [sys.executable, *before, "train", str(data), "--output", str(output)]
    return [*words, *OPTIONS, *more]


def trained(data, output, *more, **how):
    done = subprocess.run(
        command(data, output, *more, **how), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def rows_of(output):
    with open(output / "metrics.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def by_one(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "run"
    trained(data, output, "--epochs", "2", "--optimizer", "adamw")
    return output


def assert_close_run(one, other):
    """Rounding differs, and AdamW divides by it: the first epochs agree to four digits."""
    for row, expected in zip(rows_of(other), rows_of(one), strict=True):
        assert row == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert json.loads((one / "split.json").read_text()) == json.loads(
        (other / "split.json").read_text()
    )
    first, second = load_file(one / "best.safetensors"), load_file(other / "best.safetensors")
    assert first.keys() == second.keys()
    assert [t.shape for t in first.values()] == [t.shape for t in second.values()]


@pytest.mark.parametrize(
    "more",
    [("--strategy", "ddp", "--optimizer", "adamw"), ("--strategy", "fsdp", "--optimizer", "adamw")],
    ids=["ddp", "fsdp"],
)
def test_two_processes_train_as_one(data, by_one, tmp_path, more):
    said = trained(data, tmp_path / "run", "--epochs", "2", "--devices", "2", *more)
    assert said.count("a line an epoch") == 1  # only the first process speaks
    assert (tmp_path / "run" / "report.html").exists()
    assert_close_run(by_one, tmp_path / "run")


def test_muon_works_on_slices_as_on_whole_matrices(data, tmp_path):
    trained(data, tmp_path / "ddp", "--epochs", "2", "--devices", "2")
    trained(data, tmp_path / "fsdp", "--epochs", "2", "--devices", "2", "--strategy", "fsdp")
    assert_close_run(tmp_path / "ddp", tmp_path / "fsdp")


def test_torchrun_starts_the_processes_of_a_training(data, by_one, tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "hymunet.cli")
    more = ("--epochs", "2", "--optimizer", "adamw", "--devices", "2")
    said = trained(data, tmp_path / "run", *more, before=torchrun)
    assert said.count("report: ") == 1
    assert_close_run(by_one, tmp_path / "run")


def test_tasks_of_srun_on_two_machines_train_together(data, by_one, tmp_path):
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_LOCALID": "0"}
    step["SLURM_JOB_ID"] = str(os.getpid())
    words = command(
        data, tmp_path / "run", "--epochs", "2", "--optimizer", "adamw", "--num-nodes", "2"
    )
    tasks = [
        subprocess.Popen(
            words,
            env=os.environ | step | {"SLURM_PROCID": str(task), "SLURM_NODEID": str(task)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in range(2)
    ]
    said = [task.communicate(timeout=600)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert_close_run(by_one, tmp_path / "run")


def _ranks_of(launcher):
    """Ids of the processes of a training that `launcher` started, the first rank first."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    ranks = []
    for child in map(int, children):
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            ranks.append(child)
    return sorted(ranks)


def _wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_which_resumes_from_the_last_whole_checkpoint(
    data, tmp_path, rank
):
    more = ("--epochs", "12", "--devices", "2")
    run = tmp_path / "run"
    process = subprocess.Popen(command(data, run, *more), stderr=subprocess.PIPE, text=True)
    _wait_for(run / "previous.ckpt", process)
    ranks = _ranks_of(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[rank], signal.SIGKILL)
    killed = time.monotonic()
    _, said = process.communicate(timeout=MINUTE)
    print(f"the run ended {time.monotonic() - killed:.1f} s after rank {rank} was killed")
    assert process.returncode == 1
    assert f"error: process {rank} of 2 was ended from outside (SIGKILL" in said
    assert "The same command goes on from the last whole checkpoint" in said
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{one}").exists() for one in ranks)
    last = torch.load(run / "last.ckpt", weights_only=True)
    assert len(rows_of(run)) < 12
    again = trained(data, run, *more)
    assert f"resuming from {run / 'last.ckpt'}" in again
    assert [row["epoch"] for row in rows_of(run)] == list(range(1, 13))
    assert last["epoch"] < 12
    trained(data, tmp_path / "whole", *more)
    for row, expected in zip(rows_of(run), rows_of(tmp_path / "whole"), strict=True):
        assert row == expected


def test_ranks_end_with_their_launcher_and_the_folder_is_free_again(data, tmp_path):
    run = tmp_path / "run"
    more = ("--epochs", "12", "--devices", "2")
    process = subprocess.Popen(command(data, run, *more), stderr=subprocess.DEVNULL)
    _wait_for(run / "last.ckpt", process)
    ranks = _ranks_of(process.pid)
    for one in (process.pid, *ranks):  # or it might end before the second one asks
        os.kill(one, signal.SIGSTOP)
    second = subprocess.run(command(data, run, *more), capture_output=True, text=True)
    assert "another training is writing to the run folder" in second.stderr
    process.kill()
    process.wait()
    for one in ranks:
        os.kill(one, signal.SIGCONT)
    deadline = time.monotonic() + MINUTE
    while any(Path(f"/proc/{one}").exists() for one in ranks) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{one}").exists() for one in ranks)
    assert "resuming from" in trained(data, run, *more)


def test_a_mistake_is_said_once_and_without_a_traceback(data, tmp_path):
    done = subprocess.run(
        command(data, tmp_path / "run", "--epochs", "2", "--devices", "2", "--init", "nothing"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
