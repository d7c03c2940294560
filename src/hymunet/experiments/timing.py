"""Wall-clock times, in turns: what is compared is timed under the same conditions."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)

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


def in_turns(
    calls: Mapping[Key, Callable[[], object]],
    rounds: int,
    warm_up: bool = True,
    done: Callable[[], object] = lambda: None,
) -> dict[Key, list[float]]:
    """Times all calls once a round, so that a machine that slows down slows all of them.

    Args:
        calls: What to time, by name, in the order of a round; each returns when its work is done.
        rounds: Number of timed rounds.
        warm_up: Whether one more round comes first, which is not kept.
        done: Called after each turn, (rounds + warm_up) * len(calls) times.

    Returns:
        Seconds by name, the median of a turn a round.
    """
    times: dict[Key, list[float]] = {key: [] for key in calls}
    for number in range(0 if warm_up else 1, rounds + 1):
        for key, call in calls.items():
            duration = turn(call)
            if number:
                times[key].append(duration)
            done()
    return times
