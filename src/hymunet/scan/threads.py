"""Runs a compiled function on several threads at once, on the threads that torch computes with.

After each parallel operation torch's OpenMP threads spin for some milliseconds, waiting for the
next one. A pool of our own would have to share the cores with them; asking the same OpenMP runtime
finds them awake. Where torch has no OpenMP runtime that we can call, and in a forked child, whose
copy of the runtime has lost its threads, a small pool of Python threads does the work.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from pathlib import Path

import torch


class _Process:
    """What must not be taken over by a forked child: its threads stay behind in the parent."""

    def __init__(self, forked: bool = False) -> None:
        self.forked = forked
        self.pool: ThreadPoolExecutor | None = None
        self.pool_size = 0


_process = _Process()


def _after_fork() -> None:
    global _process
    _process = _Process(forked=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def thread_count() -> int:
    """Threads that a scan may use: torch's number, but no more than there are cores for us."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(torch.get_num_threads(), cores or 1))


def run_on_threads(
    function: Callable[[int], None], address: int, argument: int, threads: int
) -> None:
    """Calls a native `void f(void *)` on `threads` threads with the same argument and waits.

    The function must deal out the work itself (by a counter in what `argument` points to) and be
    correct when fewer threads come than were asked for.

    Args:
        function: The native function as ctypes calls it, without the interpreter's lock.
        address: Its address.
        argument: The pointer that it gets.
        threads: How many; 1 stays on the calling thread.
    """
    if threads == 1:
        function(argument)
        return
    parallel = None if _process.forked else _openmp_parallel()
    if parallel is not None:
        parallel(address, argument, threads, 0)
        return
    helpers: list[Future[None]] = []
    try:
        for _ in range(threads - 1):
            helpers.append(_pool(threads - 1).submit(function, argument))
        function(argument)
    finally:
        _join(helpers)


def _join(helpers: list[Future[None]]) -> None:
    """Waits for all, whatever signal comes: until then they write into memory of the caller."""
    interrupt: BaseException | None = None
    for helper in helpers:
        while not (helper.cancel() or helper.done()):  # one that never started left its share
            try:
                wait([helper])
            except BaseException as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


def _pool(size: int) -> ThreadPoolExecutor:
    if _process.pool is None or _process.pool_size < size:
        _process.pool = ThreadPoolExecutor(size, thread_name_prefix="hymunet-scan")
        _process.pool_size = size
    return _process.pool


@lru_cache(maxsize=1)
def _openmp_parallel() -> Callable[[int, int, int, int], None] | None:
    """GOMP_parallel(function, argument, threads, flags) of the OpenMP runtime that torch loaded."""
    if "OpenMP" not in torch.__config__.parallel_info() or os.name != "posix":
        return None
    beside_torch = sorted(
        str(p) for p in (Path(torch.__file__).parent / "lib").glob("lib*omp*.so*")
    )
    for name in (*beside_torch, None):  # None: what the process can see, as in a conda environment
        try:
            # RTLD_NOLOAD: the copy that is in use, or none
            runtime = ctypes.CDLL(name, mode=os.RTLD_LAZY | (os.RTLD_NOLOAD if name else 0))
            parallel = runtime.GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None
