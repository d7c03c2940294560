"""What a network costs at batch 1: parameters, multiply-adds, latency, peak memory.

Networks take turns in one process, so that a machine that slows down slows all of them. Peak memory
on the CPU is asked of a fresh process a network (`hymunet.experiments.memory`), and covers what
compiled kernels take beside torch.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hymunet.network.mamba import SS2D
from hymunet.network.segmenter import Segmenter

ROUNDS = 5
TURN_S = 0.2  # a call that is shorter is repeated within its turn


@dataclass
class Cost:
    """Of one network, for one image.

    Args:
        parameters: All of them, those that no gradient reaches included.
        multiply_adds: Of convolutions, linear layers and attention, forward.
        scan_updates: State updates of the selective scan, 5 multiply-adds and 1 exponential each.
        cpu_s: Median seconds of a forward pass on the CPU, without gradients.
        cpu_bytes: Weights and the most that a forward pass holds beside them; None where the
            system does not say.
        gpu_s: As `cpu_s`, on the GPU; None where there is none.
        gpu_bytes: As `cpu_bytes`.
        notes: What could not be measured, and why.
    """

    parameters: int
    multiply_adds: int
    scan_updates: int
    cpu_s: float
    cpu_bytes: int | None = None
    gpu_s: float | None = None
    gpu_bytes: int | None = None
    notes: list[str] = field(default_factory=list)


def count(network: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """(multiply-adds, state updates) of a forward pass, in evaluation mode.

    Multiply-adds are torch's count of floating-point operations, halved: of matrix products and
    convolutions, whatever module calls them; the scan, an operator of our own, is none of these.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    updates = []

    def remember(module: SS2D, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        updates.append(module.state_updates(inputs[0][..., 0].numel()))

    hooks = [m.register_forward_hook(remember) for m in network.modules() if isinstance(m, SS2D)]
    counter = FlopCounterMode(display=False)
    network.eval()
    try:
        # attention as the two products that it is: fused kernels are not counted everywhere
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2, sum(updates)


def in_turns(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call over `ROUNDS` in which all take turns; one before warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name, call in calls.items():
            taken: list[float] = []
            began = time.perf_counter()
            while not taken or time.perf_counter() - began < TURN_S:
                started = time.perf_counter()
                call()
                taken.append(time.perf_counter() - started)
            if number:
                # the first finds the caches full of the previous one's numbers
                times[name].append(statistics.median(taken[1:] or taken))
    return {name: statistics.median(several) for name, several in times.items()}


def measure(
    networks: Mapping[str, Segmenter],
    size: Sequence[int],
    memory: Mapping[str, int | str],
) -> dict[str, Cost]:
    """The costs of networks for one image each.

    Args:
        networks: On the CPU, by name; left there, in evaluation mode.
        size: Of the image.
        memory: Peak bytes on the CPU by name, or why they are not known; see `peak_bytes`.
    """
    images = {
        name: torch.randn(1, network.config.in_channels, *size)
        for name, network in networks.items()
    }
    costs = {}
    for name, network in networks.items():
        multiply_adds, updates = count(network, images[name])
        parameters = sum(p.numel() for p in network.parameters())
        costs[name] = Cost(parameters, multiply_adds, updates, 0.0)
    calls = {name: _forward(network, images[name]) for name, network in networks.items()}
    for name, seconds in in_turns(calls).items():
        costs[name].cpu_s = seconds
        found = memory[name]
        if isinstance(found, int):
            costs[name].cpu_bytes = found
        else:
            costs[name].notes.append(f"memory on the CPU not measured: {found}")
    if torch.cuda.is_available():
        _measure_gpu(networks, images, costs)
    return costs


def _forward(network: nn.Module, image: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            output = network(image)
        if image.is_cuda:
            torch.cuda.synchronize()
        return output

    return call


def _measure_gpu(
    networks: Mapping[str, Segmenter],
    images: Mapping[str, torch.Tensor],
    costs: Mapping[str, Cost],
) -> None:
    """Latency and peak memory on the GPU; a network that does not run there gets a note."""
    calls: dict[str, Callable[[], object]] = {}
    for name, network in networks.items():
        try:
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            call = _forward(network.cuda(), images[name].cuda())
            call()  # what is compiled and chosen once
            torch.cuda.reset_peak_memory_stats()
            call()
            costs[name].gpu_bytes = torch.cuda.max_memory_allocated() - before
            calls[name] = call
        except Exception as error:  # of one network, which must not lose the others
            costs[name].notes.append(f"not measured on the GPU: {_first_line(error)}")
    for name, seconds in in_turns(calls).items():
        costs[name].gpu_s = seconds
    for network in networks.values():
        network.cpu()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def cost_json(cost: Cost) -> dict[str, Any]:
    """Plain values by name."""
    return dict(vars(cost))
