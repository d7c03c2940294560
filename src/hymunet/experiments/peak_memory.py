"""The peak memory of a pass, measured in a process of its own.

`measure_peaks` starts `python -m hymunet.experiments.peak_memory`, which reads jobs as JSON from
standard input and answers each with a line. A warm-up, which wakes threads, compiles and loads
code, comes first; what the process holds then, with all that was freed handed back to the system,
is the baseline. The answer is by how much the largest resident set (on CUDA: allocated memory)
exceeded it while network, image and pass were made: weights, activations, scratch space, and with
training gradients and the optimiser's moments.
"""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

# what torch's allocators say where there is none left
_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
_ANSWER = "hymunet peak memory: "  # begins a line that is an answer: networks may print as well


@dataclass(frozen=True)
class Pass:
    """What is run: a forward pass without gradients, or a step of AdamW.

    Args:
        make: `module:function` that builds the network, since a process cannot be handed one.
        arguments: What the function takes, as JSON holds it.
        image: Shape of the images, (batch, channels, *spatial).
        classes: Channels of the logits.
        train: Whether it is a step.
    """

    make: str
    arguments: Mapping[str, Any]
    image: tuple[int, ...]
    classes: int = 1
    train: bool = False


@dataclass(frozen=True)
class Job:
    """A pass to measure, after another one that warms up."""

    warm_up: Pass
    measured: Pass
    threads: int
    device: str = "cpu"


@dataclass(frozen=True)
class Answer:
    """Peak bytes above the baseline (None where the system does not tell), and how long the
    measured pass took. Where there is neither, `out_of_memory` is what the allocator said, or
    `failed` what went wrong otherwise."""

    bytes: int | None = None
    seconds: float | None = None
    out_of_memory: str | None = None
    failed: str | None = None


def measure_peak(job: Job) -> Answer:
    """The answer to one job, by a process of its own."""
    return measure_peaks({"job": job})["job"]


def measure_peaks(jobs: Mapping[str, Job]) -> dict[str, Answer]:
    """Answers by name. One process works through the jobs; where it dies, the job that it was at
    has that for its answer, and a new process goes on behind it."""
    found: dict[str, Answer] = {}
    while left := {name: job for name, job in jobs.items() if name not in found}:
        end = _ask(left, found)
        unanswered = [name for name in left if name not in found]
        if unanswered:
            found[unanswered[0]] = end
    return {name: found[name] for name in jobs}


def _ask(jobs: Mapping[str, Job], found: dict[str, Answer]) -> Answer:
    """One process: fills in the answers it gives, and returns how it ended."""
    child = subprocess.run(
        [sys.executable, "-m", "hymunet.experiments.peak_memory"],
        input=json.dumps({name: asdict(job) for name, job in jobs.items()}),
        capture_output=True,
        text=True,
    )
    for line in child.stdout.splitlines():
        if line.startswith(_ANSWER):
            name, answer = json.loads(line.removeprefix(_ANSWER))
            found[name] = Answer(**answer)
    if child.returncode in (-9, 137):  # SIGKILL is what the system sends when memory runs out
        return Answer(out_of_memory="the system ended the process")
    said = child.stderr.strip().splitlines() or ["nothing"]
    return Answer(
        failed=f"the process that measures memory should end with 0, but ended with "
        f"{child.returncode}; its last words: {said[-1]}"
    )


def lack_of_memory(error: Exception) -> str | None:
    """The first line of what an allocator said; None for any other error."""
    # on a GPU it is a torch.OutOfMemoryError, on a CPU nothing but its base class RuntimeError
    text = str(error).strip()
    if not isinstance(error, MemoryError) and not any(one in text for one in _NO_MEMORY):
        return None
    return text.splitlines()[0] if text else "no memory left"


def main() -> None:
    """Answers the jobs on standard input, a line each."""
    from hymunet.experiments.resident import give_up_first

    give_up_first()
    for name, asked in json.load(sys.stdin).items():
        warm_up, measured = Pass(**asked["warm_up"]), Pass(**asked["measured"])
        try:
            answer = _answer(Job(warm_up, measured, asked["threads"], asked["device"]))
        except Exception as error:  # of one network; the others are still to be asked
            short = lack_of_memory(error)
            said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            answer = Answer(out_of_memory=short, failed=None if short else said)
        print("\n" + _ANSWER + json.dumps([name, asdict(answer)]), flush=True)


def _answer(job: Job) -> Answer:
    import torch

    from hymunet.experiments import resident

    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    _run(job.warm_up, device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        seconds = _run(job.measured, device)
        return Answer(torch.cuda.max_memory_allocated(device) - before, seconds)
    try:
        resident.hand_back()
        resident.forget_peak()
        before = resident.peak_bytes()
    except ImportError:
        return Answer(None, _run(job.measured, device))
    seconds = _run(job.measured, device)
    return Answer(resident.peak_bytes() - before, seconds)


def _run(what: Pass, device: Any) -> float:
    """Makes network and image, runs the pass and forgets all; seconds of the pass alone."""
    import torch

    from hymunet.experiments import passes, timing

    wait = timing.waiter(device)
    module, _, function = what.make.partition(":")
    torch.manual_seed(0)
    network = getattr(importlib.import_module(module), function)(**what.arguments).to(device)
    batch, channels, *spatial = what.image
    image, target = passes.picture(batch, spatial, channels, what.classes)
    image = image.to(device)
    call: Callable[[], object]
    if what.train:
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
