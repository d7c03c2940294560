"""The most memory that this process ever had resident; torch is not needed to know it."""

import contextlib
import ctypes
import gc
import sys
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process ever had resident.

    Raises:
        ImportError: On a system that does not tell (Windows).
    """
    status = Path("/proc/self/status")
    if status.exists():
        # not getrusage: on Linux its maximum is taken over from the process that started this one
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def hand_back() -> None:
    """Returns freed memory to the system (glibc), so that what is measured next cannot take from it
    unseen."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
    """Lets the peak start anew at what is resident now (Linux), so that what imports needed for a
    moment does not hide what is measured."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def give_up_first() -> None:
    """When memory runs out, the system shall end this process and not the one that waits for it
    (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
