"""How the latency of a forward pass grows with the image: Visual Mamba beside self-attention.

On the same skeleton (preset tiny), stages CCMM should cost in proportion to the pixels, while CCAA
holds attention, quadratic in them.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from rich.table import Table

from benchmarks import common
from hymunet.experiments import timing
from hymunet.experiments.passes import check, forward, picture
from hymunet.network.hymunet import hymunet_tiny

SIZES = (256, 512, 1024, 2048)
STAGES = ("CCMM", "CCAA")
# multiples of the latency at 256x256 that CCMM may take; 16x and 64x are linear
TARGETS = {1024: 18.0, 2048: 80.0}


@dataclass
class Growth:
    """Latencies of one network; seconds by the image's side, one number a round."""

    stages: str
    forward_s: dict[int, list[float]] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)  # why a size was not timed

    def multiple(self, size: int) -> float:
        """Median latency at `size` over that at the smallest size."""
        smallest = min(self.forward_s)
        return statistics.median(self.forward_s[size]) / statistics.median(self.forward_s[smallest])


def measure(largest: int, limit_s: float, repeats: int, device: str = "cpu") -> list[Growth]:
    """Checks both networks at the smallest size, then times all sizes in turns.

    Args:
        largest: The largest size to time.
        limit_s: A network is not timed at a size where one pass would take longer than this, if
            its cost grew quadratically in the pixels since the size before.
        repeats: Number of timed rounds.
        device: Where the networks run.
    """
    networks = {stages: hymunet_tiny(stages=stages).to(device) for stages in STAGES}
    wait = timing.waiter(torch.device(device))
    growths = {stages: Growth(stages) for stages in STAGES}
    images = {size: picture(1, (size, size))[0].to(device) for size in SIZES if size <= largest}
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    for stages, network in networks.items():
        check(stages, network, *(t.to(device) for t in picture(1, (SIZES[0], SIZES[0]))))
        timed_s, timed_size = 0.0, SIZES[0]
        for size, image in images.items():
            expected_s = timed_s * (size / timed_size) ** 4
            if expected_s > limit_s:
                growths[stages].left_out[size] = (
                    f"{stages} at {size}: not timed; quadratic growth would make it "
                    f"{expected_s:.0f} s a pass, more than --linear-cost-limit {limit_s:g}"
                )
                continue
            calls[stages, size] = partial(common.done, wait, forward, network, image)
            # this is the warm-up, too
            timed_s, timed_size = timing.turn(calls[stages, size]), size
    for (stages, size), times in common.in_turns(calls, repeats, warm_up=False).items():
        growths[stages].forward_s[size] = times
    return list(growths.values())


def table(growths: list[Growth], targets: bool = True) -> Table:
    """Latency and its multiple of that at 256x256, side by side."""
    out = Table(title="Cost of a larger image: preset tiny, forward of 1x3xSIZExSIZE")
    out.add_column("size", justify="right")
    for growth in growths:
        out.add_column(growth.stages, justify="right")
        out.add_column("of 256", justify="right")
    out.add_column("linear", justify="right")
    out.add_column(f"target of {STAGES[0]}")
    sizes = sorted({size for growth in growths for size in growth.forward_s})
    for size in sizes:
        cells = []
        for growth in growths:
            times = growth.forward_s.get(size)
            cells += (
                [common.milliseconds(statistics.median(times)), f"{growth.multiple(size):.1f}x"]
                if times
                else ["not timed", ""]
            )
        out.add_row(
            str(size),
            *cells,
            f"{(size / sizes[0]) ** 2:.0f}x",
            verdict(growths, size) if targets else "",
        )
    return out


def verdict(growths: list[Growth], size: int) -> str:
    """Whether CCMM's growth keeps its target, where there is one."""
    mamba = next(growth for growth in growths if growth.stages == STAGES[0])
    if size not in TARGETS or size not in mamba.forward_s:
        return ""
    limit = TARGETS[size]
    return f"{limit:.0f}x: {common.outcome(mamba.multiple(size) <= limit)}"
