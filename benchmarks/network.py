"""Times the presets against a 31 M-parameter U-Net on this machine, after checking their outputs.

    python -m benchmarks.network [--size 256] [--repeats 5] [--threads N] [--json PATH]

A forward pass of one image and a training step (forward, backward, AdamW) of a small batch. The
networks take turns in one process, so that a machine that slows down slows all of them, and the
median over the rounds is reported. Latencies are of this machine and these shapes; the ratio to
the U-Net is what travels.
"""

import contextlib
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import cyclopts
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import hymunet
from hymunet.errors import HyMUNetError, NonFiniteError
from hymunet.files import write_text
from hymunet.network.hymunet import hymunet_base, hymunet_small, hymunet_tiny

RIVAL = "U-Net"
PRESETS: dict[str, Callable[[], nn.Module]] = {
    "tiny": hymunet_tiny,
    "small": hymunet_small,
    "base": hymunet_base,
}
# parameters (millions) and share of the U-Net's latency at 256x256 that a preset may take
BUDGETS = {"tiny": (1.0, 1 / 15), "small": (3.0, 1 / 8), "base": (10.0, 1 / 3)}


@dataclass
class Timing:
    """What was measured of one network; times in seconds, one per round."""

    name: str
    parameters: int
    forward_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)


def unet() -> nn.Module:
    """MONAI's BasicUNet with the channels of the classic U-Net."""
    from monai.networks.nets import BasicUNet

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its features
        return BasicUNet(
            spatial_dims=2, in_channels=3, out_channels=1, features=(64, 128, 256, 512, 1024, 64)
        )


def picture(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """A noisy disc and its mask: images (batch, 3, size, size), targets (batch, 1, size, size)."""
    generator = torch.Generator().manual_seed(0)
    line = torch.linspace(-1, 1, size)
    disc = (line[:, None] ** 2 + line[None, :] ** 2 < 0.25).float()
    target = disc.expand(batch, 1, size, size).contiguous()
    return target + 0.5 * torch.randn(batch, 3, size, size, generator=generator), target


def forward(network: nn.Module, image: Tensor) -> Tensor:
    """Logits of `image` as a user gets them: evaluation mode, no gradients."""
    network.eval()
    with torch.inference_mode():
        return network(image)


def training_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, image: Tensor, target: Tensor
) -> Tensor:
    """One step of AdamW on the cross-entropy; returns the loss before it."""
    network.train()
    optimizer.zero_grad(set_to_none=True)
    loss = F.binary_cross_entropy_with_logits(network(image), target)
    loss.backward()
    optimizer.step()
    return loss.detach()


def check(name: str, network: nn.Module, image: Tensor, target: Tensor) -> None:
    """Refuses to time a network whose output is not a finite mask of the image's size.

    Raises:
        HyMUNetError: If the shape of the logits is not that of the target.
        NonFiniteError: If a logit, the loss or a gradient is NaN or infinite.
    """
    logits = forward(network, image)
    if logits.shape != target.shape:
        raise HyMUNetError(
            f"{name}: logits of shape {tuple(target.shape)} were expected, "
            f"{tuple(logits.shape)} came; nothing was timed"
        )
    network.train()
    loss = F.binary_cross_entropy_with_logits(network(image), target)
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    network.zero_grad(set_to_none=True)
    finite = [logits.isfinite().all(), loss.isfinite(), *(g.isfinite().all() for g in gradients)]
    if not gradients or not all(finite):
        raise NonFiniteError(
            f"{name}: a logit, the loss or a gradient is missing, NaN or infinite; "
            "nothing was timed: run the network's tests"
        )


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(size: int, step_size: int, batch: int, repeats: int) -> list[Timing]:
    """Checks every network, then times them in turns; the first round only warms up.

    Args:
        size: Height and width of the one image of a forward pass.
        step_size: Height and width of the images of a training step.
        batch: Number of images in a training step.
        repeats: Number of timed rounds.

    Returns:
        One `Timing` a network, the U-Net first.
    """
    torch.manual_seed(0)
    networks = {RIVAL: unet(), **{name: build() for name, build in PRESETS.items()}}
    optimizers = {
        name: torch.optim.AdamW(network.parameters(), lr=1e-4) for name, network in networks.items()
    }
    image, target = picture(1, size)
    images, targets = picture(batch, step_size)
    for name, network in networks.items():
        check(name, network, images[:2], targets[:2])
        check(name, network, image, target)

    timings = {
        name: Timing(name, sum(p.numel() for p in network.parameters()))
        for name, network in networks.items()
    }
    console = Console(stderr=True)  # standard output holds the table alone
    with Progress(console=console, transient=True) as progress:
        for round_number in progress.track(range(repeats + 1), description="timing"):
            for name, network in networks.items():
                forward_s = seconds(partial(forward, network, image))
                step_s = seconds(partial(training_step, network, optimizers[name], images, targets))
                if round_number:
                    timings[name].forward_s.append(forward_s)
                    timings[name].step_s.append(step_s)
    return list(timings.values())


def processor() -> str:
    """The processor's name where the system tells it, else the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(timings: list[Timing], size: int, step_size: int, batch: int) -> Table:
    """The medians, each with its share of the U-Net's; `timings[0]` is the U-Net."""
    rival_forward = statistics.median(timings[0].forward_s)
    rival_step = statistics.median(timings[0].step_s)
    out = Table(
        title=f"Medians of {len(timings[0].forward_s)} rounds: forward of 1x3x{size}x{size}, "
        f"training step of {batch}x3x{step_size}x{step_size}"
    )
    out.add_column("network")
    for heading in ("parameters", "forward", f"of {RIVAL}", "step", f"of {RIVAL}"):
        out.add_column(heading, justify="right")
    out.add_column("budget at 256x256")
    for timing in timings:
        forward_s = statistics.median(timing.forward_s)
        step_s = statistics.median(timing.step_s)
        out.add_row(
            timing.name,
            f"{timing.parameters / 1e6:.2f} M",
            f"{1e3 * forward_s:.1f} ms",
            f"1/{rival_forward / forward_s:.1f}",
            f"{1e3 * step_s:.0f} ms",
            f"1/{rival_step / step_s:.1f}",
            verdict(timing, forward_s / rival_forward, size),
        )
    return out


def verdict(timing: Timing, share: float, size: int) -> str:
    """Whether a preset keeps its budget of parameters and latency, which holds at 256x256."""
    if timing.name not in BUDGETS:
        return ""
    millions, limit = BUDGETS[timing.name]
    wanted = f"{millions:g} M, 1/{1 / limit:.0f}"
    if size != 256:
        return wanted
    kept = timing.parameters <= millions * 1e6 and share <= limit
    return f"{wanted}: {'kept' if kept else 'missed'}"


def main(
    *,
    size: int = 256,
    step_size: int = 128,
    batch: int = 8,
    repeats: int = 5,
    threads: int | None = None,
    json_path: Annotated[Path | None, cyclopts.Parameter(name="--json")] = None,
) -> None:
    """Time the presets tiny, small and base against a 31 M-parameter U-Net on the CPU.

    Args:
        size: Height and width of the image of the forward pass, in pixels.
        step_size: Height and width of the images of the training step, in pixels.
        batch: Number of images in a training step.
        repeats: Number of timed rounds, after one that warms up.
        threads: Number of threads that torch uses; its own choice when not given.
        json_path: File to write every single time to, with machine and versions.
    """
    console = Console()
    for name, value in (("repeats", repeats), ("batch", batch), ("threads", threads)):
        if value is not None and value < 1:
            raise HyMUNetError(f"--{name} must be at least 1, {value} came")
    if size % 32 or step_size % 32 or min(size, step_size) < 32:
        raise HyMUNetError(
            f"--size and --step-size must be multiples of 32, {size} and {step_size} came: "
            "the networks are timed without padding"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hymunet": hymunet.__version__,
    }
    console.print(
        f"{machine['processor']}, {machine['threads']} threads of {machine['cores']} cores, "
        f"torch {machine['torch']}",
        highlight=False,
    )
    timings = measure(size, step_size, batch, repeats)
    console.print(table(timings, size, step_size, batch))
    if json_path is not None:
        result = {
            "machine": machine,
            "forward_shape": [1, 3, size, size],
            "step_shape": [batch, 3, step_size, step_size],
            "networks": [asdict(timing) for timing in timings],
        }
        write_text(json_path, json.dumps(result, indent=2) + "\n")
        console.print(f"written: {json_path}", highlight=False)


if __name__ == "__main__":
    app = cyclopts.App(name="python -m benchmarks.network", version_flags=[])
    app.default(main)
    try:
        app()
    except HyMUNetError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False)
        raise SystemExit(1) from None
