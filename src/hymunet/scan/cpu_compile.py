"""Compiles the Numba kernels to native functions, and keeps them on disk where possible."""

import ctypes
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import numpy as np
from numba import types

from hymunet.scan import cpu_kernels


@dataclass(frozen=True)
class Native:
    """A compiled kernel: as ctypes calls it (without the interpreter's lock), and where it lies."""

    function: Callable[[int], None]
    address: int
    owner: object  # Numba's; the code goes when it goes


_lock = threading.Lock()
_compiled: dict[tuple[str, np.dtype], Native] = {}
_announced, _warned = threading.Event(), threading.Event()


def native(kernel: str, dtype: np.dtype) -> Native:
    """`kernel` of `cpu_kernels` for numbers of `dtype`, compiled at its first use.

    Compiled code is kept in the package's `__pycache__`, else in the user's cache folder
    (`NUMBA_CACHE_DIR` names another). Where none can be written, each process compiles anew and
    says so once.
    """
    key = (kernel, dtype)
    if key not in _compiled:
        with _lock:
            if key not in _compiled:
                _compiled[key] = _compile(getattr(cpu_kernels, kernel), dtype)
    return _compiled[key]


def _compile(kernel: Callable[..., None], dtype: np.dtype) -> Native:
    record = numba.from_dtype(cpu_kernels.record_type(dtype))
    signature = types.void(types.CPointer(record))
    with _announcement(after_s=1.0):
        try:
            compiled = numba.cfunc(signature, cache=True, error_model="numpy")(kernel)
        # nothing that is wrong with a cache is a reason not to compute: Numba finds no place to
        # write (RuntimeError), cannot write there (OSError), or meets a damaged file (any error)
        except Exception as error:
            compiled = numba.cfunc(signature, error_model="numpy")(kernel)
            if not _warned.is_set():
                _warned.set()
                warnings.warn(
                    "the compiled selective scan cannot be kept on disk, so each process compiles "
                    f"it again ({error}); set NUMBA_CACHE_DIR to a folder that can be written",
                    RuntimeWarning,
                    stacklevel=2,
                )
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiled.address)
    return Native(function, compiled.address, compiled)


@contextmanager
def _announcement(after_s: float) -> Iterator[None]:
    """Tells the user, once a process, what takes so long; what is loaded from disk is silent."""

    def announce() -> None:
        if not _announced.is_set():
            _announced.set()
            from rich.console import Console

            from hymunet.console import say

            say(
                Console(stderr=True),
                "Compiling the selective scan for this processor (once, some seconds) ...",
                style="dim",
            )

    timer = threading.Timer(after_s, announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
