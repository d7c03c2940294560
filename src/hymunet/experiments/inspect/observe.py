"""What flows through a network for one image: features, skips and gates, taken by hooks.

Hooks only look: outputs are those of the network without them, to the last bit, and none is left
behind.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hymunet.network.hymunet import HyMUNet
from hymunet.network.mamba import SS2D


@dataclass(frozen=True)
class Skip:
    """One skip: what comes in from the encoder, and the gate it is multiplied by.

    Args:
        level: Encoder stage it starts from, 0 the finest.
        shallow: Encoder feature (1, C, *spatial).
        gate: In (0, 1), (1, C or 1, *spatial); None for a skip without one.
        decoded: What the decoder makes of it, (1, C, *spatial).
    """

    level: int
    shallow: Tensor
    gate: Tensor | None
    decoded: Tensor


@dataclass
class Observation:
    """All that `observe` has seen; each list has an entry a stage, finest first.

    Args:
        image: The network's input (1, C, *spatial).
        logits: (1, num_classes, *spatial).
        stage_inputs: What enters a stage, after its down-sampling.
        stage_outputs: Encoder features.
        skips: Finest first.
        scans: By stage: the tokens (1, *spatial, C) that each of its scans reads, in order.
    """

    image: Tensor
    logits: Tensor
    stage_inputs: list[Tensor] = field(default_factory=list)
    stage_outputs: list[Tensor] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    scans: dict[int, list[tuple[SS2D, Tensor]]] = field(default_factory=dict)


def observe(network: HyMUNet, image: Tensor, gradients: bool = False) -> Observation:
    """Runs one image in evaluation mode and keeps what stages and skips read and return.

    Args:
        network: Left as it came: its modes, its weights and their gradients, without hooks.
        image: (1, in_channels, *spatial), sides multiples of the network's stride.
        gradients: Whether features shall be differentiable with respect to the image.

    Raises:
        HyMUNetError: If the image does not fit the network.
    """
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    handles = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen[module] = inputs[0], output

    fusions, blocks = network.decoder.fusions, network.decoder.blocks
    scans = {
        stage: [m for m in module.modules() if isinstance(m, SS2D)]
        for stage, module in enumerate(network.encoder.stages)
    }
    watched: list[nn.Module] = [*network.encoder.stages, *fusions, *blocks]
    watched += [scan for found in scans.values() for scan in found]
    watched += [gate for fusion in fusions if (gate := getattr(fusion, "gate", None)) is not None]
    modes = {module: module.training for module in network.modules()}
    image = image.detach().clone().requires_grad_(gradients)
    try:
        handles = [module.register_forward_hook(keep) for module in watched]
        with torch.set_grad_enabled(gradients):
            logits = network.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    observation = Observation(image, logits)
    observation.stage_inputs = [seen[stage][0] for stage in network.encoder.stages]
    observation.stage_outputs = [seen[stage][1] for stage in network.encoder.stages]
    observation.scans = {
        stage: [(scan, seen[scan][0]) for scan in found] for stage, found in scans.items() if found
    }
    last = len(network.config.stages) - 2  # the decoder begins at the second coarsest stage
    for step, (fusion, block) in enumerate(zip(fusions, blocks, strict=True)):
        gate = getattr(fusion, "gate", None)
        opened = None if gate is None else torch.sigmoid(seen[gate][1].detach())
        shallow, decoded = seen[fusion][0].detach(), seen[block][1].detach()
        observation.skips.append(Skip(last - step, shallow, opened, decoded))
    observation.skips.reverse()
    return observation


def squared_gradient(
    output: Tensor, position: tuple[int, ...], source: Tensor, generator: torch.Generator
) -> Tensor:
    """How strongly one position of `output` hangs on each position of `source`.

    With J the Jacobian of the position's channels with respect to `source`, it is |v J|^2 summed
    over the source's channels, v drawn from a standard normal: its mean over draws is the sum of
    all squared entries of J, without one backward pass a channel.

    Args:
        output: (1, C, *spatial), differentiable with respect to `source`.
        position: Index of one position of `output`.
        source: (1, C', *spatial').
        generator: Draws v on the CPU, so that all devices get the same.

    Returns:
        (*spatial') float64 on the CPU.
    """
    weights = torch.randn(output.shape[1], generator=generator).to(output)
    index: tuple[int | slice, ...] = (0, slice(None), *position)
    at = output[index]
    (gradient,) = torch.autograd.grad((at * weights).sum(), source, retain_graph=True)
    return gradient[0].double().square().sum(dim=0).cpu()
