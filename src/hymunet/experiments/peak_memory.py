"""The peak memory of one pass, measured in a process of its own.

    python -m hymunet.experiments.peak_memory < JOB

A fresh process has no freed memory of earlier passes to take from. It imports everything and runs
a toy network of the same letters, which wakes threads and loads code; what it holds then is the
baseline. The answer is by how much the largest resident set (on CUDA: allocated memory) exceeded
it while network, image and pass were made: weights, activations, scratch space, and with training
gradients and the optimiser's moments.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from hymunet.errors import HyMUNetError

# what torch's allocators say where there is none left
_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


@dataclass(frozen=True)
class Job:
    """A pass to measure: `config` holds the fields of `HyMUNetConfig`."""

    config: dict[str, Any]
    side: int
    batch: int
    train: bool
    threads: int
    device: str


@dataclass(frozen=True)
class Answer:
    """Peak above the baseline (None where the system does not tell), and how long the first and
    only pass took; `out_of_memory` says what the allocator said, and then there is neither."""

    bytes: int | None = None
    seconds: float | None = None
    out_of_memory: str | None = None


def measure_peak(job: Job) -> Answer:
    """Runs `job` in a child process.

    Raises:
        HyMUNetError: If the child ends for another reason than want of memory, with its last words.
    """
    child = subprocess.run(
        [sys.executable, "-m", "hymunet.experiments.peak_memory"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
    )
    if child.returncode in (-9, 137):  # SIGKILL is what the system sends when memory runs out
        return Answer(out_of_memory="the system ended the process")
    if child.returncode:
        said = child.stderr.strip().splitlines() or ["nothing"]
        raise HyMUNetError(
            f"the process that measures memory should end with 0, but ended with "
            f"{child.returncode}; its last words: {said[-1]}"
        )
    return Answer(**json.loads(child.stdout.splitlines()[-1]))


def main() -> None:
    """Reads a job, prints the answer."""
    from hymunet.experiments.resident import give_up_first

    give_up_first()
    job = Job(**json.load(sys.stdin))
    try:
        answer = _answer(job)
    except (MemoryError, RuntimeError) as error:
        answer = Answer(out_of_memory=lack_of_memory(error))
    print(json.dumps(asdict(answer)))


def lack_of_memory(error: Exception) -> str:
    """The first line of what an allocator said; any other error is raised again."""
    # on a GPU it is a torch.OutOfMemoryError, on a CPU nothing but its base class RuntimeError
    text = str(error).strip()
    if not isinstance(error, MemoryError) and not any(one in text for one in _NO_MEMORY):
        raise error
    return text.splitlines()[0] if text else "no memory left"


def _answer(job: Job) -> Answer:
    import torch

    from hymunet.experiments import resident
    from hymunet.network.config import HyMUNetConfig

    torch.set_num_threads(job.threads)
    config = HyMUNetConfig(**job.config)
    stages, device = len(config.stages), torch.device(job.device)
    toy = replace(config, dims=(config.head_channels,) * stages, depths=(1,) * stages)
    # two images at most: batch norm needs two values, and more would only take longer
    _one_pass(toy, replace(job, side=2 * config.stride, batch=min(job.batch, 2)))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        seconds = _one_pass(config, job)
        return Answer(torch.cuda.max_memory_allocated(device) - before, seconds)
    try:
        resident.hand_back()
        resident.forget_peak()
        before = resident.peak_bytes()
    except ImportError:
        return Answer(None, _one_pass(config, job))
    seconds = _one_pass(config, job)
    return Answer(resident.peak_bytes() - before, seconds)


def _one_pass(config: Any, job: Job) -> float:
    """Makes network and image, runs one pass and forgets all; seconds of the pass alone."""
    import torch

    from hymunet.experiments import passes, timing
    from hymunet.network.hymunet import HyMUNet

    device = torch.device(job.device)
    wait = timing.waiter(device)
    network = HyMUNet.from_config(config).to(device)
    image, target = passes.picture(
        job.batch, job.side, config.in_channels, config.num_classes, config.spatial_dims
    )
    image = image.to(device)
    call: Callable[[], object]
    if job.train:
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        call = partial(passes.training_step, network, optimizer, image, target.to(device))
    else:
        call = partial(passes.forward, network, image)
    del target
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
