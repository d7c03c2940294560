"""What a training takes on this machine, measured by a few steps with made-up images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hymunet.training.options import TrainOptions
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.data.case import Dataset
    from hymunet.training.decide import Decision
    from hymunet.training.planning.plan import Plan

# loading, augmentation and validation beside the steps themselves
_BESIDES = 1.25


@dataclass(frozen=True)
class Planned:
    """What `plan` says.

    Args:
        plan: Each setting with its reason.
        parameters: Of the network.
        memory: Bytes that a batch needs for its backward pass.
        free: Bytes that are free; None where the machine does not say.
        seconds: Of one optimisation step on this machine, by measurement, without loading.
        steps: Optimisation steps in all.
    """

    plan: "Plan"
    parameters: int
    memory: int
    free: int | None
    seconds: float
    steps: int

    @property
    def training_seconds(self) -> float:
        """Of the whole training, loading and validation included by a rule of thumb."""
        return self.seconds * self.steps * _BESIDES

    @property
    def duration(self) -> str:
        """The same in words."""
        minutes = self.training_seconds / 60
        return plural(round(minutes), "minute") if minutes < 120 else f"{minutes / 60:.1f} hours"


def measured(decision: "Decision", dataset: "Dataset", options: TrainOptions) -> Planned:
    """The plan with what it takes here; a batch that does not fit is halved."""
    import torch
    from rich.console import Console

    from hymunet.training.cost import (
        available_memory,
        bytes_a_sample,
        made_up_batches,
        seconds_a_step,
    )
    from hymunet.training.decide import uses_gpu
    from hymunet.training.initial import starting_network
    from hymunet.training.limits import in_memory
    from hymunet.training.loading import kind_of_images
    from hymunet.training.options import seconds_of

    settings = decision.settings
    channels, dims, _ = kind_of_images(dataset.cases[0])
    network = starting_network(settings, channels, dims, Path()).network
    device = torch.device("cuda" if uses_gpu(options) else "cpu")
    stride = network.config.stride
    median = decision.plan.median_size
    size = settings.patch_size or (
        tuple(-(-side // stride) * stride for side in median)
        if settings.image_size is None
        else (-(-settings.image_size // stride) * stride,) * 2
    )
    needed, free = bytes_a_sample(network, size), available_memory(device)
    if options.batch_size is None:
        quiet = Console(quiet=True)  # the plan says it
        decision = in_memory(decision, needed, free, quiet, options.epochs is None)
        settings = decision.settings
    step = seconds_a_step(
        network.to(device), made_up_batches(network, settings, size), settings, device
    )
    samples = decision.plan.training_cases * settings.patches
    steps = max(1, samples // settings.batch_size)
    if options.budget is not None:
        epochs = max(1, int(seconds_of(options.budget) / (step * steps * _BESIDES)))
        reason = f"about {step * steps * _BESIDES:.0f} s each, and the budget is {options.budget}"
        decision = decision.but("epochs", epochs, reason)
        settings = decision.settings
    parameters = sum(p.numel() for p in network.parameters())
    return Planned(
        decision.plan,
        parameters,
        needed * settings.batch_size,
        free,
        step,
        steps * settings.epochs,
    )
