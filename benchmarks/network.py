"""Times the presets against four networks of MONAI on this machine, after checking their outputs.

    python -m benchmarks.network [--size 256] [--repeats 5] [--linear-cost] [--device cuda]

A forward pass of one image and a training step (forward, backward, AdamW) of a small batch. The
networks take turns in one process, so that a machine that slows down slows all of them, and the
median over the rounds is reported. Latencies are of this machine and these shapes; the ratio to
the 31 M-parameter U-Net is what travels.
"""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import common, linear_cost
from benchmarks.network_rivals import RIVALS, SWIN, YARDSTICK
from hymunet.console import run_script, say
from hymunet.errors import HyMUNetError
from hymunet.experiments.passes import check, forward, picture, training_step
from hymunet.experiments.timing import waiter
from hymunet.extras import require
from hymunet.machine import machine
from hymunet.network.hymunet import PRESETS


@dataclass(frozen=True)
class Budget:
    """What a preset may take: parameters, and shares of the U-Net's times."""

    parameters: int
    forward: float  # at 256x256
    step: float | None = None  # at batch 8


BUDGETS = {
    "tiny": Budget(1_000_000, 1 / 15, step=1 / 10),
    "small": Budget(3_000_000, 1 / 8),
    "base": Budget(10_000_000, 1 / 3),
}


@dataclass
class Timing:
    """What was measured of one network; times in seconds, one per round."""

    name: str
    parameters: int
    forward_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)


def measure(
    size: int, step_size: int, batch: int, repeats: int, rivals: list[str], device: str = "cpu"
) -> list[Timing]:
    """Checks every network, then times them in turns; the first round only warms up.

    Args:
        size: Height and width of the one image of a forward pass.
        step_size: Height and width of the images of a training step.
        batch: Number of images in a training step.
        repeats: Number of timed rounds.
        rivals: Names of the rivals that take part, the U-Net first.
        device: Where the networks run.

    Returns:
        One `Timing` a network, the U-Net first.
    """
    torch.manual_seed(0)
    builders = {name: RIVALS[name] for name in rivals}
    networks = {name: build().to(device) for name, build in (builders | PRESETS).items()}
    image, target = (tensor.to(device) for tensor in picture(1, (size, size)))
    images, targets = (tensor.to(device) for tensor in picture(batch, (step_size, step_size)))
    wait = waiter(torch.device(device))
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for name, network in networks.items():
        check(name, network, images[:2], targets[:2])
        check(name, network, image, target)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        calls[name, "forward"] = partial(common.done, wait, forward, network, image)
        calls[name, "step"] = partial(
            common.done, wait, training_step, network, optimizer, images, targets
        )
    times = common.in_turns(calls, repeats)
    return [
        Timing(
            name,
            sum(p.numel() for p in network.parameters()),
            times[name, "forward"],
            times[name, "step"],
        )
        for name, network in networks.items()
    ]


def table(timings: list[Timing], size: int, step_size: int, batch: int) -> Table:
    """The medians, each with its share of the U-Net's; `timings[0]` is the U-Net."""
    yardstick_forward = statistics.median(timings[0].forward_s)
    yardstick_step = statistics.median(timings[0].step_s)
    out = Table(
        title=f"Medians of {len(timings[0].forward_s)} rounds: forward of 1x3x{size}x{size}, "
        f"training step of {batch}x3x{step_size}x{step_size}"
    )
    out.add_column("network")
    for heading in ("parameters", "forward", f"of {YARDSTICK}", "step", f"of {YARDSTICK}"):
        out.add_column(heading, justify="right")
    for timing in timings:
        forward_s = statistics.median(timing.forward_s)
        step_s = statistics.median(timing.step_s)
        out.add_row(
            timing.name,
            f"{timing.parameters / 1e6:.2f} M",
            common.milliseconds(forward_s),
            share(forward_s / yardstick_forward),
            common.milliseconds(step_s),
            share(step_s / yardstick_step),
            end_section=timing is timings[-len(PRESETS) - 1],
        )
    return out


def share(value: float) -> str:
    """A share of the U-Net's time as people say it: 1/12.3, or 1.4x where it takes longer."""
    return f"1/{1 / value:.1f}" if value <= 1 else f"{value:.1f}x"


def verdicts(timings: list[Timing], size: int, batch: int) -> list[tuple[str, bool]]:
    """Each budget that these shapes can judge, and whether it is kept: that of latency holds at
    256x256, that of a training step at batch 8."""
    yardstick = timings[0]
    out = []
    for timing in timings:
        if timing.name not in BUDGETS:
            continue
        budget = BUDGETS[timing.name]
        millions = budget.parameters / 1e6
        text = f"{timing.name}: at most {millions:g} M parameters"
        out.append((text, timing.parameters <= budget.parameters))
        limits = {
            "forward": budget.forward if size == 256 else None,
            "training step": budget.step if batch == 8 else None,
        }
        times = {
            "forward": (timing.forward_s, yardstick.forward_s),
            "training step": (timing.step_s, yardstick.step_s),
        }
        for what, limit in limits.items():
            if limit is not None:
                own, whole = (statistics.median(several) for several in times[what])
                text = f"{timing.name}: {what} at most {share(limit)} of the {YARDSTICK}'s"
                out.append((f"{text}, {share(own / whole)} measured", own <= limit * whole))
    return out


def main(
    *,
    size: int = 256,
    step_size: int = 128,
    batch: int = 8,
    repeats: int = 5,
    threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    networks: bool = True,
    rivals: bool = True,
    linear_cost_: Annotated[bool, cyclopts.Parameter(name="--linear-cost")] = False,
    linear_cost_max: int = 2048,
    linear_cost_limit: float = 10.0,
    json_path: Annotated[Path | None, cyclopts.Parameter(name="--json")] = None,
) -> None:
    """Time the presets tiny, small and base against MONAI's U-Nets.

    Rivals are BasicUNet (31 M parameters, the yardstick of the budgets), AttentionUnet, SegResNet
    and SwinUNETR, untrained. Every network is checked first: logits of the image's size, finite
    logits, loss and gradients. Then all take turns in one process. A turn lasts at least 0.3 s,
    its time is the median of its calls; the median of the rounds is reported. All of it takes some
    minutes on two cores; --no-rivals is the quick way to see whether the budgets are kept.

    Args:
        size: Height and width of the image of the forward pass, in pixels.
        step_size: Height and width of the images of the training step, in pixels.
        batch: Number of images in a training step.
        repeats: Number of timed rounds, after one that warms up.
        threads: Number of threads that torch uses; its own choice when not given.
        device: Where; the budgets of latency and training steps are those of the CPU.
        networks: Whether to time the networks; --no-networks --linear-cost times growth alone.
        rivals: Whether to time rivals other than the U-Net.
        linear_cost_: Whether to time forward passes of tiny at 256, 512, 1024 and 2048 pixels a
            side with Visual Mamba (stages CCMM) and with self-attention (CCAA) in the deep stages.
        linear_cost_max: Largest size of that; 256 or more.
        linear_cost_limit: Seconds that a pass may be expected to take, else its size is left out
            with a line that says so; attention at 2048 is the one to expect that of.
        json_path: Where to write every single time with machine and versions: a file that ends in
            .json, or else a folder, which gets network.json.
    """
    console = Console()
    common.check_at_least(1, repeats=repeats, batch=batch, threads=threads)
    common.check_at_least(linear_cost.SIZES[0], linear_cost_max=linear_cost_max)
    if size % 32 or step_size % 32 or min(size, step_size) < 64:
        raise HyMUNetError(
            f"--size and --step-size must be multiples of 32, 64 or more; {size} and {step_size} "
            "came: the networks are timed without padding, and SwinUNETR has nothing to "
            "normalise in smaller images"
        )
    if networks:
        require("train", "the comparison with MONAI's networks", "monai")
    if threads is not None:
        torch.set_num_threads(threads)
    facts = machine("monai", "numba")
    if device == "cuda":
        facts |= common.gpu_facts()
    common.introduce(console, facts)
    result: dict[str, Any] = {"machine": facts}

    if networks:
        taking_part = [name for name in RIVALS if rivals or name == YARDSTICK]
        if SWIN in taking_part and find_spec("einops") is None:
            taking_part.remove(SWIN)
            say(console, f"{SWIN}: not timed; MONAI needs einops for it: pip install einops")
        timings = measure(size, step_size, batch, repeats, taking_part, device)
        console.print(table(timings, size, step_size, batch))
        for text, kept in verdicts(timings, size, batch) if device == "cpu" else ():
            say(console, f"{text}: {common.outcome(kept)}")
        result |= {
            "forward_shape": [1, 3, size, size],
            "step_shape": [batch, 3, step_size, step_size],
            "networks": [asdict(timing) for timing in timings],
        }
    if linear_cost_:
        growths = linear_cost.measure(linear_cost_max, linear_cost_limit, repeats, device)
        console.print(linear_cost.table(growths, targets=device == "cpu"))
        for reason in (line for growth in growths for line in growth.left_out.values()):
            say(console, reason)
        result["linear_cost"] = [asdict(growth) for growth in growths]
    if json_path is not None:
        common.write_json(json_path, "network", result, console)


if __name__ == "__main__":
    run_script(main, "python -m benchmarks.network")
