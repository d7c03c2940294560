"""Starts the processes of a training on this machine, and ends all of them when one ends badly."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch
from torch.distributed import TCPStore

from hymunet.errors import HyMUNetError
from hymunet.training.ranks import LostProcessError

# for the others to say what they know when one has ended, and to end themselves after Ctrl-C
_GRACE_S = 2.0


def launch(count: int, work: Callable[..., object], args: Sequence[Any]) -> None:
    """Calls `work(*args)` in `count` new processes, named as torchrun would name them, and waits.

    They are spawned, so `work` and `args` are pickled and a script needs the usual
    `if __name__ == "__main__":`. When one ends badly the others are killed; when this process
    ends, whatever the reason, they end themselves.

    Raises:
        HyMUNetError: What a process says of a mistake; or that one was killed.
        RuntimeError: With the traceback of a process that failed otherwise.
    """
    # kept here and not by the first of them, so that no port is guessed and none outlives it
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    names = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
    }
    threads = max(1, torch.get_num_threads() // count)
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    answers: list[Connection] = []
    failed: list[int] = []
    try:
        for rank in range(count):
            here, there = context.Pipe(duplex=False)
            own = names | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = context.Process(target=_work, args=(work, args, own, threads, there))
            process.start()
            there.close()
            processes.append(process)
            answers.append(here)
        failed = _failed(processes)
    except KeyboardInterrupt:
        for process in processes:  # a terminal has told them as well
            process.join(_GRACE_S)
        raise
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
    if failed:
        _raise_cause([(rank, processes[rank].exitcode, answers[rank]) for rank in failed], count)


def _failed(processes: Sequence[SpawnProcess]) -> list[int]:
    """Waits until all have ended well or one has ended badly; the ranks of those that did, in the
    order in which they ended."""
    failed: list[int] = []
    running = dict(enumerate(processes))
    while running and not failed:
        wait([process.sentinel for process in running.values()])
        failed += _leave(running)
    for process in running.values():  # who misses another may say so, or may wait for ever
        process.join(_GRACE_S)
    return failed + _leave(running)


def _leave(running: dict[int, SpawnProcess]) -> list[int]:
    """Takes those that have ended out of `running`; the ranks of those that ended badly."""
    ended = [rank for rank, process in running.items() if process.exitcode is not None]
    return [rank for rank in ended if running.pop(rank).exitcode]


def _raise_cause(failed: Sequence[tuple[int, int | None, Connection]], count: int) -> None:
    """Says why a training ended: the first process that failed of itself, not by missing another.

    Raises:
        HyMUNetError: If it was killed, or met a mistake of the user's.
        RuntimeError: With the traceback of any other error.
    """
    said = [(rank, code, *_received(answer)) for rank, code, answer in failed]
    rank, code, kind, text = next((one for one in said if one[2] != "lost"), said[0])
    if kind == "mistake":
        raise HyMUNetError(text)
    if kind == "defect":
        raise RuntimeError(f"process {rank} of {count} failed:\n{text}")
    how = f"exit code {code}"
    if code is not None and code < 0:
        with suppress(ValueError):
            how = signal.Signals(-code).name
    memory = "; the system does so where memory runs out" if how == "SIGKILL" else ""
    raise HyMUNetError(
        f"process {rank} of {count} was ended from outside ({how}{memory}), so the training was "
        "stopped. The same command goes on from the last whole checkpoint"
    )


def _received(answer: Connection) -> tuple[str, str]:
    """What a process said before it ended: of what kind, and in words."""
    with suppress(EOFError, OSError):
        if answer.poll():
            kind, text = answer.recv_bytes().decode().split("\n", 1)
            return kind, text
    return "", ""


def _work(
    work: Callable[..., object],
    args: Sequence[Any],
    names: dict[str, str],
    threads: int,
    answer: Connection,
) -> None:
    """One process."""
    os.environ.update(names)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(*args)
    except KeyboardInterrupt:
        sys.exit(130)
    except LostProcessError as error:
        kind, text = "lost", str(error)
    except HyMUNetError as error:
        kind, text = "mistake", str(error)
    except BaseException:
        kind, text = "defect", traceback.format_exc()
    else:
        return
    answer.send_bytes(f"{kind}\n{text}".encode())
    answer.close()
    sys.stderr.flush()
    os._exit(1)  # what is left of a process group would wait for the others


def _end_with_parent() -> None:
    """A training that nobody waits for any more would go on writing into a folder that is free."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
