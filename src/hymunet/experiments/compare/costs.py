"""What a network costs at batch 1: parameters, multiply-adds, latency, peak memory.

Networks take turns in one process, so that a machine that slows down slows all of them; peak memory
is measured in another (`hymunet.experiments.peak_memory`).
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from hymunet.experiments import passes, timing
from hymunet.experiments.compare.entrants import Entrant, new_network
from hymunet.experiments.peak_memory import Answer, Job, Pass, measure_peaks
from hymunet.network.hymunet import HyMUNet
from hymunet.network.mamba import SS2D
from hymunet.network.segmenter import Segmenter
from hymunet.network.summary import summarise
from hymunet.training.planning.plan import Settings

ROUNDS = 5


@dataclass
class Cost:
    """Of one network, for one image.

    Args:
        parameters: All of them, those that no gradient reaches included; None where the network
            could not be built.
        multiply_adds: Of convolutions, linear layers and attention, forward; None where they
            could not be counted.
        scan_updates: State updates of the selective scan, 5 multiply-adds and 1 exponential each.
        cpu_s: Median seconds of a forward pass on the CPU, without gradients; None where it failed.
        cpu_bytes: Peak of a forward pass above a warm process, weights and image included; None
            where the system does not say.
        gpu_s: As `cpu_s`, on the GPU; None where there is none.
        gpu_bytes: As `cpu_bytes`.
        notes: What could not be measured, and why.
    """

    parameters: int | None
    multiply_adds: int | None = None
    scan_updates: int | None = None
    cpu_s: float | None = None
    cpu_bytes: int | None = None
    gpu_s: float | None = None
    gpu_bytes: int | None = None
    notes: list[str] = field(default_factory=list)


def count(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """(multiply-adds, state updates) of a forward pass of one image, in evaluation mode.

    Of ours, `network.summary` counts them. Of any other they are torch's count of floating-point
    operations, halved: of matrix products and convolutions, whatever module calls them; a scan of
    ours in it, an operator that torch does not know, is counted beside them.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    if isinstance(network, HyMUNet):
        summary = summarise(network, tuple(image.shape[2:]))
        return summary.multiply_adds, summary.scan_updates
    updates = []

    def remember(module: SS2D, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        updates.append(module.state_updates(inputs[0][..., 0].numel()))

    hooks = [m.register_forward_hook(remember) for m in network.modules() if isinstance(m, SS2D)]
    counter = FlopCounterMode(display=False)
    try:
        # attention as the two products that it is: fused kernels are not counted everywhere
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            network.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2, sum(updates)


def measure(
    entrants: Sequence[Entrant],
    settings: Mapping[str, Settings],
    in_channels: int,
    size: tuple[int, ...],
) -> dict[str, Cost]:
    """All costs by name, on the CPU and, where there is one, on the GPU.

    Args:
        entrants: Who takes part.
        settings: By which they are built, by name.
        in_channels: Of the image.
        size: Of the image.
    """
    image, _ = passes.picture(1, size, in_channels)
    networks: dict[str, Segmenter] = {}
    costs: dict[str, Cost] = {}
    for one in entrants:
        try:
            network = new_network(one, settings[one.name], in_channels, len(size))
        except Exception as error:  # such as a user's file that is gone since it was trained
            costs[one.name] = Cost(None, notes=[f"cannot be built any more: {_first_line(error)}"])
        else:
            networks[one.name] = network
            costs[one.name] = _counted(network, image)
    built = [one for one in entrants if one.name in networks]
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        jobs = {one.name: _job(one, settings[one.name], image, device) for one in built}
        for name, answer in measure_peaks(jobs).items():
            _note_peak(costs[name], answer, device)
        for name, seconds in _latencies(networks, image, torch.device(device), costs).items():
            setattr(costs[name], "cpu_s" if device == "cpu" else "gpu_s", seconds)
    return costs


def _counted(network: nn.Module, image: Tensor) -> Cost:
    cost = Cost(sum(p.numel() for p in network.parameters()))
    try:
        cost.multiply_adds, cost.scan_updates = count(network, image)
    except Exception as error:  # of one network, which must not lose the others
        cost.notes.append(f"multiply-adds not counted: {_first_line(error)}")
    return cost


def _job(entrant: Entrant, settings: Settings, image: Tensor, device: str) -> Job:
    arguments = {
        "entrant": asdict(entrant),
        "settings": asdict(settings),
        "in_channels": image.shape[1],
        "spatial_dims": image.ndim - 2,
    }
    # nothing smaller of a network that we do not know would warm up all that it needs
    once = Pass(f"{Entrant.__module__}:rebuilt", arguments, tuple(image.shape))
    return Job(once, once, torch.get_num_threads(), device)


def _note_peak(cost: Cost, answer: Answer, device: str) -> None:
    if answer.bytes is None:
        unknown = "this system does not tell a process's peak memory"
        why = answer.out_of_memory or answer.failed or unknown
        cost.notes.append(f"memory on the {_name(device)} not measured: {why}")
    elif device == "cpu":
        cost.cpu_bytes = answer.bytes
    else:
        cost.gpu_bytes = answer.bytes


def _latencies(
    networks: Mapping[str, Segmenter],
    image: Tensor,
    device: torch.device,
    costs: Mapping[str, Cost],
) -> dict[str, float]:
    """Median seconds by name; a network that does not run there gets a note instead."""
    image, wait = image.to(device), timing.waiter(device)
    calls: dict[str, Callable[[], object]] = {}
    for name, network in networks.items():
        try:
            call = partial(_run, network.to(device), image, wait)
            call()
        except Exception as error:  # of one network, which must not lose the others
            costs[name].notes.append(f"not run on the {_name(device.type)}: {_first_line(error)}")
        else:
            calls[name] = call
    times = timing.in_turns(calls, ROUNDS)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _run(network: nn.Module, image: Tensor, wait: Callable[[], None]) -> None:
    passes.forward(network, image)
    wait()


def _name(device: str) -> str:
    return "CPU" if device == "cpu" else "GPU"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
