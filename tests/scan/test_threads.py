"""The CPU kernels among other threads and processes, and where their compiled code is kept."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import hymunet
from hymunet.scan import scan_orders, selective_scan
from hymunet.scan.threads import run_on_threads, thread_count
from tests.cases import scan_inputs

pytest.importorskip("numba", reason="NOT TESTED: the CPU kernels need Numba")


def training_step():
    """y and the gradients of a scan large enough for several threads."""
    torch.manual_seed(0)
    order = scan_orders((20, 20))
    inputs = scan_inputs(2, 400, 4, 64, 16, torch.float32)
    y = selective_scan(**inputs, order=order, delta_softplus=True)
    gradients = torch.autograd.grad(y.square().sum(), list(inputs.values()))
    return [y.detach(), *gradients]


def test_eight_threads_at_once():
    expected = training_step()
    # drawing inputs is not what is tested: torch's generator is shared by all threads
    order = scan_orders((20, 20))
    torch.manual_seed(0)
    inputs = scan_inputs(2, 400, 4, 64, 16, torch.float32)

    def work(_):
        mine = {n: t.detach().clone().requires_grad_() for n, t in inputs.items()}
        y = selective_scan(**mine, order=order, delta_softplus=True)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), list(mine.values()))]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(24)))
    for result in results:
        for ours, reference in zip(result, expected, strict=True):
            assert torch.equal(ours, reference)


def test_threads_are_never_more_than_torch_may_use():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert thread_count() == 1
        torch.set_num_threads(4096)
        if hasattr(os, "sched_getaffinity"):
            assert thread_count() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("openmp", [True, False], ids=["OpenMP of torch", "own pool"])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_task_is_done_once(openmp, threads, monkeypatch):
    import ctypes

    from hymunet.scan import threads as module

    if not openmp:
        monkeypatch.setattr(module, "_openmp_parallel", lambda: None)
    calls = []
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(calls.append)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    run_on_threads(callback, address, 4711, threads)
    # each thread that came got the argument; on the calling thread it runs in any case
    assert 1 <= len(calls) <= threads
    assert set(calls) == {4711}


def test_an_exception_waits_for_the_threads_that_still_write(monkeypatch):
    # the pool's threads use the caller's memory: it must not be freed under them
    import ctypes
    import threading

    from hymunet.scan import threads as module

    monkeypatch.setattr(module, "_openmp_parallel", lambda: None)
    entered, may_leave, left = threading.Event(), threading.Event(), threading.Event()
    caller = threading.current_thread()

    def work(_):
        if threading.current_thread() is not caller:
            entered.set()
            may_leave.wait(30)
            left.set()

    def call(argument):
        assert entered.wait(30)
        threading.Timer(0.3, may_leave.set).start()
        raise KeyboardInterrupt

    helper = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(work)
    first = iter([True])

    def function(argument):
        (call if threading.current_thread() is caller and next(first, False) else helper)(argument)

    with pytest.raises(KeyboardInterrupt):
        run_on_threads(function, 0, 1, 2)
    assert left.is_set()


def run_python(program, tmp_path, **environment):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(program))
    return subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
        cwd=tmp_path,
    )


SCAN = """
import warnings
import torch
from hymunet.scan import selective_scan

def scan():
    torch.manual_seed(0)
    u = torch.randn(2, 300, 32, requires_grad=True)
    delta, B, C = torch.rand(2, 300, 1, 32), torch.randn(2, 300, 1, 16), torch.randn(2, 300, 1, 16)
    y = selective_scan(u, delta, -torch.rand(1, 32, 16), B, C, torch.ones(32))
    y.square().sum().backward()
    return y.sum().item(), u.grad.sum().item()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: this system has no fork")
def test_a_forked_child_computes_the_same(tmp_path):
    # the parent has used torch's threads before; these do not exist in the child
    program = (
        SCAN
        + """
import os
parent = scan()
read, write = os.pipe()
if os.fork() == 0:
    torch.set_num_threads(1)  # torch's own operations may not use its lost threads either
    torch.set_num_threads = None
    import hymunet.scan.cpu as cpu
    cpu.thread_count = lambda: 2
    os.write(write, repr(scan()).encode())
    os._exit(0)
os.close(write)
child = os.read(read, 1000).decode()
assert child == repr(parent), (child, parent)
print("same")
"""
    )
    done = run_python(program, tmp_path)
    assert done.stdout == "same\n", done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: this system has no fork")
def test_a_child_forked_during_a_compilation_does_not_hang(tmp_path):
    program = (
        SCAN
        + """
import os, signal, threading
from hymunet.scan import cpu_compile
compiling = threading.Event()
cpu_compile._Announcement.on_start = lambda self, started: compiling.set()
thread = threading.Thread(target=scan)
thread.start()
assert compiling.wait(100)
if os.fork() == 0:
    signal.alarm(60)  # ends a child that hangs
    torch.set_num_threads(1)
    scan()
    os._exit(0)
thread.join()
print("status", os.wait()[1])
"""
    )
    done = run_python(program, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "compiled"))
    assert done.stdout == "status 0\n", done.stderr


@pytest.mark.slow
def test_processes_that_start_together_without_compiled_code(tmp_path):
    program = (
        SCAN
        + """
if __name__ == "__main__":
    import torch.multiprocessing as mp
    with mp.get_context("spawn").Pool(4) as pool:
        results = [pool.apply_async(scan) for _ in range(4)]
        values = {result.get(timeout=200) for result in results}
    assert len(values) == 1, values
    print("same")
"""
    )
    done = run_python(program, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "compiled"))
    assert done.stdout == "same\n", done.stderr
    assert list((tmp_path / "compiled").rglob("*.nbi")), "nothing was kept on disk"


@pytest.fixture
def open_folder():
    """A folder that other users may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
            path.chmod(0o755)


@pytest.mark.slow
def test_where_nothing_can_be_written_it_computes_and_warns_once(open_folder):
    # a copy of the package as in a read-only site-packages, and a home that cannot be written
    package = open_folder / "site" / "hymunet"
    shutil.copytree(
        Path(hymunet.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    home = open_folder / "home"
    home.mkdir()
    for path in (home, package.parent, *package.parent.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    program = (
        SCAN
        + """
import hymunet
assert "site" in hymunet.__file__, hymunet.__file__
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    scan(), scan()
texts = [str(w.message) for w in caught if "cannot be kept on disk" in str(w.message)]
print(len(texts), "NUMBA_CACHE_DIR" in texts[0])
"""
    )
    command = [sys.executable, "-c", program]
    if os.geteuid() == 0:  # root writes everywhere: run as somebody who does not
        if not shutil.which("setpriv"):
            pytest.skip("NOT TESTED: root may write everywhere, and there is no setpriv")
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")},
        "HOME": str(home),
        "PYTHONPATH": str(package.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, cwd="/"
    )
    assert done.stdout == "1 True\n", done.stderr
    assert "Compiling the selective scan" in done.stderr


@pytest.mark.slow
def test_damaged_compiled_code_is_compiled_again_and_kept(tmp_path):
    kept = tmp_path / "compiled"
    first = run_python(SCAN + "print(scan())", tmp_path, NUMBA_CACHE_DIR=str(kept))
    assert "Compiling" in first.stderr
    for file in kept.rglob("*.nb?"):
        file.write_bytes(file.read_bytes()[:40])
    again = run_python(SCAN + "print(scan())", tmp_path, NUMBA_CACHE_DIR=str(kept))
    healed = run_python(SCAN + "print(scan())", tmp_path, NUMBA_CACHE_DIR=str(kept))
    assert healed.stdout == again.stdout == first.stdout != "", again.stderr
    assert "Compiling" in again.stderr
    assert healed.stderr == ""  # loaded: neither a warning nor a word about compiling
