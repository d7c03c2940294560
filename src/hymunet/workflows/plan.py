"""`hymunet plan`: what a training of a data set would do, why, and what it would take."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hymunet.training.options import TrainOptions

if TYPE_CHECKING:
    from rich.console import Console

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


def plan(
    data: Path,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    options: TrainOptions | None = None,
    json: bool = False,
) -> Planned:
    """Says how `train` would train on a data set, why, and what it would take on this machine.

    Looks at every case (a second look is instant) and chooses what is left open: structures, whole
    pictures or windows, their size and spacing, normalisation, batch, passes. `train` uses the same
    plan and keeps it in the run folder; what you give as an option goes before it, here as there.
    Memory and time are measured by a few steps with made-up images.

    Args:
        data: A data set in any layout that `train` reads.
        images: Folder of images, where it has no usual name.
        masks: Folder of masks, likewise.
        options: As those of `train`.
        json: Print the plan as JSON.

    Raises:
        HyMUNetError: If the data cannot be trained on; `hymunet verify` says why.
    """
    from rich.console import Console

    from hymunet.data.formats import find_dataset
    from hymunet.extras import require
    from hymunet.training.decide import decide

    require("train", "planning a training", "monai", "lightning")
    options = options or TrainOptions()
    dataset = find_dataset(Path(data), images, masks)
    console = Console(stderr=True, quiet=json)
    planned = _measured(decide(dataset, options, console), dataset, options)
    if json:
        _print_json(planned)
    else:
        _print(Console(), dataset, planned)
    return planned


def _measured(decision: "Decision", dataset: "Dataset", options: TrainOptions) -> Planned:
    """The plan with what it takes here; a batch that does not fit is halved."""
    import torch

    from hymunet.training.cost import (
        available_memory,
        batch_that_fits,
        bytes_a_sample,
        made_up_batches,
        seconds_a_step,
    )
    from hymunet.training.decide import uses_gpu
    from hymunet.training.initial import starting_network
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
        fits = batch_that_fits(settings.batch_size, needed, free)
        if fits != settings.batch_size:
            reason = f"{settings.batch_size} would need over half of the memory"
            decision = decision.but("batch_size", fits, reason)
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


def _print(console: "Console", dataset: "Dataset", planned: Planned) -> None:
    from rich.table import Table
    from rich.text import Text

    from hymunet.training.decide import shown_value

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("setting", "value", "why"):
        table.add_column(column)
    for choice in planned.plan.choices:
        value = "-" if choice.value is None else shown_value(choice.value)
        table.add_row(choice.name, Text(value, style="bold"), Text(choice.reason))
    console.print(Text(f"{dataset.name}: {len(dataset.cases)} cases in {dataset.root}"))
    console.print(table)
    free = "" if planned.free is None else f" of {planned.free / 2**30:.1f} GiB that are free"
    minutes = planned.seconds * planned.steps * _BESIDES / 60
    console.print(
        Text(
            f"\n{planned.parameters:,} parameters; a batch needs about "
            f"{planned.memory / 2**30:.2f} GiB{free}; a step takes {planned.seconds:.2f} s here, "
            f"so {planned.steps:,} steps take about {_duration(minutes)}. "
            "Give any setting as an option of train to have it otherwise."
        )
    )


def _duration(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def _print_json(planned: Planned) -> None:
    from json import dumps

    content: dict[str, Any] = {
        "plan": planned.plan.to_json(),
        "parameters": planned.parameters,
        "batch_bytes": planned.memory,
        "free_bytes": planned.free,
        "step_seconds": round(planned.seconds, 4),
        "steps": planned.steps,
        "training_seconds": round(planned.seconds * planned.steps * _BESIDES, 1),
    }
    sys.stdout.write(dumps(content, indent=1) + "\n")
