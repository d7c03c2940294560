"""Times the selective scan against two rivals on this machine, after checking that all agree.

    python -m benchmarks.scan [--case 4x1024 ...] [--repeats 5] [--device cuda] [--json PATH]

Rivals: a plain torch loop over `unbind` with autograd, and `pscan`, mambapy's parallel scan; their
gathers to the visiting order count, since hymunet's operator reads the order itself. Times change
from machine to machine; how many times faster than the faster rival is what travels.
"""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks import common, scan_child
from benchmarks.scan_rivals import (
    CHANNELS,
    DIRECTIONS,
    LOOP,
    OURS,
    SCANS,
    STATE,
    Case,
    agreement,
    check_mambapy,
    forward,
    forward_backward,
    gradient_of_y,
    make_inputs,
    order_of,
)
from hymunet.console import run_script, say
from hymunet.experiments import resident
from hymunet.experiments.timing import waiter
from hymunet.machine import machine

CASES = ("4x1024", "4x256", "1x16384")
FORWARD, BOTH = "forward", "forward_backward"
LABELS = {FORWARD: "forward", BOTH: "fwd+bwd"}
# how many times faster than the faster rival, at the first case
TARGETS = {FORWARD: 6.0, BOTH: 8.0}
# the share of the first case's factor that other lengths shall keep
KEPT_ELSEWHERE = 2 / 3
MEMORY_TARGET = 1 / 10  # of the loop's
FIRST_CALL_TARGETS_S = {"warm": 1.5, "cold": 40.0}

Times = dict[str, dict[str, list[float]]]  # by pass, then by implementation; seconds, one a round


def measure(case: Case, repeats: int, device: str = "cpu") -> Times:
    """Times forward (no graph) and forward + backward (every input's gradient) in turns."""
    inputs, order = make_inputs(case, device=device), order_of(case, device)
    grad_y = gradient_of_y(inputs)
    done = partial(common.done, waiter(torch.device(device)))
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for name, scan in SCANS.items():
        calls[FORWARD, name] = partial(done, forward, scan, inputs, order)
    for name, scan in SCANS.items():
        calls[BOTH, name] = partial(done, forward_backward, scan, inputs, order, grad_y)
    measured = common.in_turns(calls, repeats)
    return {
        what: {name: times for (which, name), times in measured.items() if which == what}
        for what in TARGETS
    }


def memory_on_gpu(case: Case) -> dict[str, float]:
    """Bytes by implementation that a forward and a backward pass allocate at most on the GPU."""
    inputs, order = make_inputs(case, device="cuda"), order_of(case, "cuda")
    grad_y = gradient_of_y(inputs)
    extra = {}
    for name, scan in SCANS.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward_backward(scan, inputs, order, grad_y)
        extra[name] = float(torch.cuda.max_memory_allocated() - before)
    return extra


def times_faster(times: dict[str, list[float]]) -> float:
    """The faster rival's median over ours."""
    medians = {name: statistics.median(of_one) for name, of_one in times.items()}
    return min(median for name, median in medians.items() if name != OURS) / medians[OURS]


def agreement_table(errors: dict[Case, dict[str, dict[str, float]]]) -> Table:
    """Errors against the float64 reference."""
    title = "Errors max|x - x64| / max|x64| of y and of the inputs' gradients"
    out = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    out.add_column("case")
    out.add_column("by")
    quantities = next(iter(next(iter(errors.values())).values()))
    for quantity in quantities:
        heading = "y" if quantity == "y" else "d" + quantity.removeprefix("delta_")
        out.add_column(heading, justify="right")
    for case, by_name in errors.items():
        for name, by_quantity in by_name.items():
            numbers = (
                f"{by_quantity[quantity]:.0e}".replace("e-0", "e-") for quantity in quantities
            )
            out.add_row(str(case), name, *numbers, end_section=name == list(by_name)[-1])
    return out


def times_table(times: dict[Case, Times], repeats: int, targets: bool = True) -> Table:
    """Medians, how many times faster than the faster rival, and the CPU's targets."""
    out = Table(
        title=f"Medians of {repeats} rounds: batch x length, {DIRECTIONS} directions x {CHANNELS} "
        f"channels, state {STATE}, float32"
    )
    out.add_column("case")
    out.add_column("pass")
    for name in SCANS:
        out.add_column(name, justify="right")
    out.add_column("faster", justify="right")
    out.add_column("target")
    for case, by_pass in times.items():
        for what, by_name in by_pass.items():
            factor = times_faster(by_name)
            target = target_of(case, what, times) if targets else None
            out.add_row(
                str(case),
                LABELS[what],
                *(common.milliseconds(statistics.median(by_name[name])) for name in SCANS),
                f"{factor:.1f}x",
                "" if target is None else f"{target:.1f}x: {common.outcome(factor >= target)}",
                end_section=what == BOTH,
            )
    return out


def target_of(case: Case, what: str, times: dict[Case, Times]) -> float | None:
    """The factor wanted: 6x and 8x at 4x1024; elsewhere two thirds of what 4x1024 reached, hence
    none when that was not timed."""
    first = Case.parse(CASES[0])
    if case == first:
        return TARGETS[what]
    if str(case) in CASES and first in times:
        return KEPT_ELSEWHERE * times_faster(times[first][what])
    return None


def memory_table(extra: dict[str, float], case: Case) -> Table:
    """What each implementation needs beyond its inputs, beside the loop's."""
    out = Table(title=f"Peak memory of {LABELS[BOTH]} at {case}, beyond the inputs")
    out.add_column("by")
    out.add_column("MiB", justify="right")
    out.add_column(f"of the {LOOP}", justify="right")
    out.add_column("target")
    for name, extra_bytes in extra.items():
        share = extra_bytes / extra[LOOP]
        kept = f"1/{1 / MEMORY_TARGET:.0f}: {common.outcome(share <= MEMORY_TARGET)}"
        out.add_row(
            name, f"{extra_bytes / 2**20:.1f}", f"{share:.3f}", kept if name == OURS else ""
        )
    return out


def first_call_table(seconds: dict[str, dict[str, float]]) -> Table:
    """What compiled kernels add to the time to a first result."""
    out = Table(
        title=f"From import to a first result at {scan_child.FRESH_CASE} in a fresh process"
    )
    for heading in ("cache", "result"):
        out.add_column(heading)
    for heading in (OURS, LOOP, "added"):
        out.add_column(heading, justify="right")
    out.add_column("target")
    for cache, limit_s in FIRST_CALL_TARGETS_S.items():
        for what, key in ((FORWARD, "forward_s"), (BOTH, "forward_backward_s")):
            ours_s, plain_s = seconds[cache][key], seconds["plain"][key]
            added_s = ours_s - plain_s
            out.add_row(
                cache,
                LABELS[what],
                *(f"{number:.2f} s" for number in (ours_s, plain_s, added_s)),
                f"{limit_s:g} s: {common.outcome(added_s <= limit_s)}",
            )
    return out


def memory_in_children(case: Case, threads: int, console: Console) -> dict[str, float]:
    """Bytes by implementation, one child process after the other; empty where the system does not
    tell, with a line that says so."""
    try:
        resident.peak_bytes()
    except ImportError:
        say(console, "memory: not measured; this system does not tell a process's peak")
        return {}
    return {
        name: scan_child.ask("memory", name, str(case), threads)["extra_bytes"] for name in SCANS
    }


def main(
    *,
    case: Annotated[list[str] | None, cyclopts.Parameter(negative=())] = None,
    repeats: int = 5,
    threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    times: bool = True,
    memory: bool = True,
    first_call: bool = True,
    json_path: Annotated[Path | None, cyclopts.Parameter(name="--json")] = None,
) -> None:
    """Time the selective scan against a plain torch loop and mambapy's parallel scan.

    Inputs are random tokens in 4 directions x 128 channels with 16 states, float32, in raster
    order; delta comes with bias and softplus, as in the network. Every implementation is first
    compared with the float64 reference (y and each gradient) and nothing is timed if one is more
    than 1e-3 away. Then all take turns in one process. A turn lasts at least 0.3 s, its time is
    the median of its calls; the median of the rounds is reported. All of it takes about two minutes
    on two cores and up to 8 GB of memory, most of it mambapy's at 1x16384.

    Args:
        case: BATCHxLENGTH, the length a square; give it again for more. 4x1024, 4x256 and 1x16384
            when not given.
        repeats: Number of timed rounds, after one that warms up.
        threads: Number of threads that torch and the kernels use; torch's own choice when not
            given.
        device: Where: the targets are those of the CPU, and so is the time to a first result.
        times: Whether to check and time the cases.
        memory: Whether to measure, in a fresh process an implementation, the peak memory of forward
            and backward at the first case.
        first_call: Whether to measure, in fresh processes, the time from importing hymunet.scan to
            a first result, with an empty and with a filled cache of compiled kernels.
        json_path: Where to write every single time with machine and versions: a file that ends in
            .json, or else a folder, which gets scan.json.
    """
    console = Console()
    common.check_at_least(1, repeats=repeats, threads=threads)
    cases = [Case.parse(text) for text in case or CASES]
    if times or memory:
        check_mambapy()
    if threads is not None:
        torch.set_num_threads(threads)
    facts = machine("numba", "mambapy")
    if device == "cuda":
        facts |= common.gpu_facts()
    common.introduce(console, facts)
    result: dict[str, Any] = {"machine": facts}

    if times:
        errors = {one: agreement(one, device=device) for one in cases}
        console.print(agreement_table(errors))
        measured = {one: measure(one, repeats, device) for one in cases}
        console.print(times_table(measured, repeats, targets=device == "cpu"))
        result["shape"] = {"directions": DIRECTIONS, "channels": CHANNELS, "state": STATE}
        result["cases"] = [
            {
                "batch": one.batch,
                "length": one.length,
                "errors": errors[one],
                "times_s": by_pass,
                "times_faster": {what: times_faster(by_name) for what, by_name in by_pass.items()},
            }
            for one, by_pass in measured.items()
        ]
    if memory:
        extra = (
            memory_on_gpu(cases[0])
            if device == "cuda"
            else memory_in_children(cases[0], facts["threads"], console)
        )
        if extra:
            console.print(memory_table(extra, cases[0]))
        result["memory"] = {"case": str(cases[0]), "extra_bytes": extra}
    if first_call and device == "cpu":
        seconds = scan_child.first_calls(OURS, LOOP, repeats=3, threads=facts["threads"])
        console.print(first_call_table(seconds))
        result["first_call"] = seconds
    if json_path is not None:
        common.write_json(json_path, "scan", result, console)


if __name__ == "__main__":
    run_script(main, "python -m benchmarks.scan")
