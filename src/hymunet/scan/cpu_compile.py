"""Compiles the Numba kernels to native functions, and keeps them on disk where possible."""

import ctypes
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import event
from numba.core.caching import FunctionCache

from hymunet.scan import cpu_kernels


@dataclass(frozen=True)
class Native:
    """A compiled kernel: as ctypes calls it (without the interpreter's lock), and where it lies."""

    function: Callable[[int], None]
    address: int
    owner: object  # Numba's; the code goes when it goes


_lock = threading.RLock()
_compiled: dict[tuple[str, np.dtype], Native] = {}
_announced, _warned = threading.Event(), threading.Event()

if hasattr(os, "register_at_fork"):
    # a fork waits for the end of a compilation: a child would inherit locks that nobody opens
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


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
    with event.install_listener("numba:compile", _Announcement()):
        try:
            compiled = _compile_or_load(kernel, signature)
        # nothing that is wrong with a cache is a reason not to compute: Numba finds no place to
        # write (RuntimeError), or cannot write there (OSError)
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


def _compile_or_load(kernel: Callable[..., None], signature: Any) -> Any:
    compile_cached = numba.cfunc(signature, cache=True, error_model="numpy")
    try:
        return compile_cached(kernel)
    except Exception:
        # a damaged file would fail in every process to come; without it this one writes a new one
        FunctionCache(kernel).flush()
        return compile_cached(kernel)


class _Announcement(event.Listener):
    """Tells the user, once a process, what takes so long; what is loaded from disk is silent."""

    def on_start(self, started: event.Event) -> None:
        if not _announced.is_set():
            _announced.set()
            from rich.console import Console

            from hymunet.console import say

            text = "Compiling the selective scan for this processor (some seconds) ..."
            say(Console(stderr=True), text, style="dim")

    def on_end(self, ended: event.Event) -> None:
        pass
