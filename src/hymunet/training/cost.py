"""What a training takes on this machine, by measurement: memory a sample, seconds a step."""

import copy
import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hymunet.inference.sliding_window import sliding_window
from hymunet.network.segmenter import Segmenter
from hymunet.training.lightning_module import VALIDATION_OVERLAP
from hymunet.training.losses import LossWeights, encode_labels, hybrid_loss
from hymunet.training.optimiser import make_optimiser
from hymunet.training.planning.plan import Settings
from hymunet.training.trainer import in_bfloat16


class Batches(Protocol):
    """What gives batches and knows how many: a loader or a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[dict[str, Tensor]]: ...


# of what is free: gradients, the loss's own planes and the allocator's slack take the rest
_SHARE = 0.5
_STEPS, _PATIENCE_S = 11, 30.0
_MARGIN = 0.95  # of a budget, since epochs do not all take as long
_MANY, _LOOKS = 20, 6


def bytes_a_sample(network: Segmenter, size: Sequence[int]) -> int:
    """Bytes that the backward pass needs of one image of `size`: tensors that autograd saves.

    Measured in the network's own precision on the CPU or where its weights are; the network is
    left as it was.
    """
    network = copy.deepcopy(network).train()
    first = next(network.parameters())
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    # two, since batch statistics of one may be of a single value
    image = torch.zeros((2, network.config.in_channels, *size), device=first.device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(image)
    weights = sum(p.untyped_storage().nbytes() for p in network.parameters())
    del logits
    return max(1, (sum(seen.values()) - weights) // 2)


def available_memory(device: torch.device) -> int | None:
    """Bytes that are free on `device`; None where the machine does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = [line for line in file if line.startswith("MemAvailable:")]
        return int(free[0].split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def batch_that_fits(batch_size: int, a_sample: int, free: int | None) -> int:
    """`batch_size`, halved until its samples need no more than half of what is free."""
    while batch_size > 1 and free is not None and batch_size * a_sample > _SHARE * free:
        batch_size //= 2
    return batch_size


@dataclass(frozen=True)
class Pace:
    """How fast a machine trains a network.

    Args:
        step: Seconds of an optimisation step.
        look: Seconds of a look at the whole validation part.
    """

    step: float
    look: float

    def seconds(self, steps: int) -> float:
        """Of an epoch."""
        return steps * self.step + self.look

    def epochs_in(self, seconds: float, steps: int, shorter: bool = True) -> tuple[int, int]:
        """How many epochs fit into a time, and of how many steps.

        Where fewer than 20 whole epochs fit, what is left over would be a large share of the time,
        and a slow network would be looked at once or twice: epochs become shorter until at least
        six fill the time, as long as looks take no more than a third of it.

        Args:
            seconds: For training and validation together.
            steps: Of a whole epoch.
            shorter: Whether an epoch may have fewer steps.

        Returns:
            Epochs and steps, at least 1 each.
        """
        seconds *= _MARGIN
        fit = seconds / self.seconds(steps)
        if fit >= _MANY or not shorter:
            return max(1, int(fit)), steps
        looks = max(math.ceil(fit), min(_LOOKS, int(seconds / (3 * self.look))))
        epochs = max(1, min(looks, int(seconds / self.seconds(1))))
        return epochs, min(steps, max(1, int((seconds / epochs - self.look) / self.step)))


def pace_of(
    network: Segmenter, loaders: tuple[Batches, Batches], settings: Settings, device: torch.device
) -> Pace:
    """A few real steps by a copy of the network, on real batches, and a validation of two.

    Args:
        network: Left as it is.
        loaders: Of training and validation.
        settings: Loss, optimiser, precision.
        device: Where it will be trained.
    """
    training, validation = loaders
    with torch.random.fork_rng():
        step = seconds_a_step(copy.deepcopy(network).to(device), training, settings, device)
    look = _seconds_a_look(copy.deepcopy(network).to(device), validation, settings, device)
    return Pace(step, look * len(validation))


def made_up_batches(
    network: Segmenter, settings: Settings, size: Sequence[int]
) -> list[dict[str, Tensor]]:
    """Noise with noise as its mask, for measuring steps without data."""
    generator = torch.Generator().manual_seed(0)
    shape = (settings.batch_size, network.config.in_channels, *size)
    image = torch.randn(shape, generator=generator)
    label = torch.randint(network.config.num_labels, (shape[0], *size), generator=generator)
    return [{"image": image, "label": label.to(torch.uint8)}] * (_STEPS + 1)


def seconds_a_step(
    network: Segmenter, loader: Batches, settings: Settings, device: torch.device
) -> float:
    """Median over a few optimisation steps, loading and augmentation included; of the later half,
    since the first ones of a large network are a quarter slower, until the allocator has what it
    needs. The network is changed."""
    network.train()
    optimiser, _ = make_optimiser(
        network, settings.learning_rate, settings.weight_decay, 10, 0.0, name=settings.optimizer
    )
    weights = LossWeights(settings.cross_entropy_weight, settings.dice_weight)
    taken, began = [], time.monotonic()
    batches = iter(loader)
    for _ in range(_STEPS + 1):
        started = time.monotonic()
        batch = next(batches, None)
        if batch is None or started - began > _PATIENCE_S:
            break
        target = encode_labels(
            batch["label"].to(device), network.config.num_classes, settings.activation
        )
        with _precision(settings, device):
            logits = network(batch["image"].to(device))
            loss = hybrid_loss(
                logits[0] if isinstance(logits, list) else logits,
                target,
                settings.activation,
                weights,
            )["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()  # waits for the device
        taken.append(time.monotonic() - started)
    return statistics.median(taken[len(taken) // 2 :])


@torch.no_grad()
def _seconds_a_look(
    network: Segmenter, loader: Batches, settings: Settings, device: torch.device
) -> float:
    """Of one validation batch: the second where there is one, since the first warms up."""
    network.eval()
    taken = math.inf
    batches = iter(loader)
    for _ in range(2):
        started = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            break
        image = batch["image"].to(device)
        with _precision(settings, device):
            if settings.resize == "window" and settings.patch_size is not None:
                sliding_window(network, image, settings.patch_size, VALIDATION_OVERLAP)
            else:
                network(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken = time.monotonic() - started
    return taken


def _precision(settings: Settings, device: torch.device) -> "torch.autocast | nullcontext[None]":
    if in_bfloat16(settings, device):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
