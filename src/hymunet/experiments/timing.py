"""Wall-clock times, and the machine without which they cannot be quoted."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import hymunet

# a call that is shorter than this is repeated within its turn
TURN_S = 0.3


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def turn(call: Callable[[], object]) -> float:
    """The median time of the calls that fit into a turn, at least one.

    Where several fit, the first is left out: it finds the caches full of the previous rival's
    numbers, and memory handed back to the system that has to be asked for again.
    """
    times = [seconds(call)]
    end = time.perf_counter() + TURN_S - times[0]
    while time.perf_counter() < end:
        times.append(seconds(call))
    return statistics.median(times[1:] or times)


def waiter(device: torch.device) -> Callable[[], None]:
    """What waits until `device` has done all that it was given; on a CPU that is so already."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def processor() -> str:
    """The processor's name where the system tells it, else the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine(*packages: str) -> dict[str, Any]:
    """Processor, threads, system and versions: what a time cannot be quoted without.

    Args:
        *packages: Packages whose versions matter besides torch's; None where one is missing.
    """
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hymunet": hymunet.__version__,
        **{package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
