"""What only a fresh process can tell of a scan: its peak memory, and the time to a first result.

`benchmarks.scan` starts one child an answer, `python -m benchmarks.scan_child QUESTION SCAN CASE
THREADS`, and reads a line of JSON. Nothing is imported at the top that the time to a first result
includes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FRESH_CASE = "1x64"  # for first results, and to wake threads and load code before memory is read


def ask(question: str, scan: str, case: str, threads: int, **environment: str) -> dict[str, float]:
    """Runs a child process and returns its answer.

    Args:
        question: `memory` or `first_call`.
        scan: Name of an implementation, a key of `benchmarks.scan_rivals.SCANS`.
        case: Such as 4x1024.
        threads: Number of threads that torch uses.
        **environment: Environment variables that differ from this process's.

    Raises:
        HyMUNetError: If the child fails, with what it said last.
    """
    from hymunet.errors import HyMUNetError

    root = Path(__file__).resolve().parents[1]
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.scan_child", question, scan, case, str(threads)],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if child.returncode:
        said = child.stderr.strip().splitlines() or ["nothing"]
        raise HyMUNetError(
            f"the process that measures {question} of {scan} at {case} should end with 0, but "
            f"ended with {child.returncode} (negative: killed, perhaps for want of memory); its "
            f"last words: {said[-1]}"
        )
    return json.loads(child.stdout.splitlines()[-1])


def first_calls(ours: str, plain: str, repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """Seconds from importing `hymunet.scan` to results, with an empty and with a filled cache.

    The cache is a folder of its own, empty at first, so neither the user's nor the package's is
    touched. Where caches are filled, one child more comes first (it leaves its files in the
    system's memory) and the medians of `repeats` are returned.

    Args:
        ours: The implementation that compiles.
        plain: The one that does not; what both spend on importing torch is in its time.
        repeats: Children for each figure with a filled cache.
        threads: Number of threads that torch uses.

    Returns:
        By `cold`, `warm` and `plain`: `forward_s` and `forward_backward_s`, both since the start.
    """
    from statistics import median

    with tempfile.TemporaryDirectory() as folder:
        cold = ask("first_call", ours, FRESH_CASE, threads, NUMBA_CACHE_DIR=folder)
        rounds = {"warm": ours, "plain": plain}
        answers: dict[str, list[dict[str, float]]] = {name: [] for name in rounds}
        for round_number in range(repeats + 1):
            for name, scan in rounds.items():
                answer = ask("first_call", scan, FRESH_CASE, threads, NUMBA_CACHE_DIR=folder)
                if round_number:
                    answers[name].append(answer)
    medians = {
        name: {key: median(one[key] for one in several) for key in cold}
        for name, several in answers.items()
    }
    return {"cold": cold, **medians}


def answer_first_call(scan: str, case: str, threads: int) -> dict[str, float]:
    start = time.perf_counter()
    from benchmarks import scan_rivals as rivals  # imports torch and hymunet.scan

    rivals.torch.set_num_threads(threads)
    parsed = rivals.Case.parse(case)
    inputs, order = rivals.make_inputs(parsed), rivals.order_of(parsed)
    grad_y = rivals.gradient_of_y(inputs)
    rivals.forward(rivals.SCANS[scan], inputs, order)
    forward_s = time.perf_counter() - start
    rivals.forward_backward(rivals.SCANS[scan], inputs, order, grad_y)
    return {"forward_s": forward_s, "forward_backward_s": time.perf_counter() - start}


def answer_memory(scan: str, case: str, threads: int) -> dict[str, float]:
    from benchmarks import scan_rivals as rivals
    from hymunet.experiments import resident

    rivals.torch.set_num_threads(threads)
    implementation = rivals.SCANS[scan]
    for text in (FRESH_CASE, case):  # the first wakes threads, loads code and settles allocators
        parsed = rivals.Case.parse(text)
        inputs, order = rivals.make_inputs(parsed), rivals.order_of(parsed)
        grad_y = rivals.gradient_of_y(inputs)
        resident.forget_peak()
        before = resident.peak_bytes()
        results = rivals.forward_backward(implementation, inputs, order, grad_y)
        extra = resident.peak_bytes() - before
        del results
    return {"extra_bytes": extra, "inputs_bytes": before}


def main(question: str, scan: str, case: str, threads: str) -> None:
    answers = {"memory": answer_memory, "first_call": answer_first_call}
    print(json.dumps(answers[question](scan, case, int(threads))))


if __name__ == "__main__":
    main(*sys.argv[1:])
