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
from torch import Tensor, nn

from hymunet.network.segmenter import Segmenter
from hymunet.training.lightning_module import SegmentationTask
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
    """A few real steps by a copy of the network, on real batches, and looks at two.

    Args:
        network: Left as it is.
        loaders: Of training and validation.
        settings: Loss, optimiser, precision.
        device: Where it will be trained.
    """
    training, validation = loaders
    step = seconds_a_step(copy.deepcopy(network), training, settings, device)
    look = _seconds_a_look(copy.deepcopy(network), validation, settings, device)
    return Pace(step, look * len(validation))


def made_up_batches(
    network: Segmenter, settings: Settings, size: Sequence[int]
) -> list[dict[str, Tensor]]:
    """Noise with noise as its mask, for measuring steps without data."""
    generator = torch.Generator().manual_seed(0)
    shape = (settings.batch_size, network.config.in_channels, *size)
    image = torch.randn(shape, generator=generator)
    label = torch.randint(network.config.num_labels, (shape[0], *size), generator=generator)
    batch = {"image": image, "label": label.to(torch.uint8)}
    return [batch | {"valid": torch.ones_like(batch["label"])}] * (_STEPS + 1)


def seconds_a_step(
    network: Segmenter, loader: Batches, settings: Settings, device: torch.device
) -> float:
    """Median over a few optimisation steps, all that belongs to one included; of the later half,
    since the first ones of a large network are a quarter slower, until the allocator has what it
    needs. The network is changed."""
    task = SegmentationTask(network, settings, steps_per_epoch=_STEPS + 1).to(device)
    optimiser = task.configure_optimizers()["optimizer"]
    taken, began = [], time.monotonic()
    batches = iter(loader)
    with torch.random.fork_rng():
        task.on_train_epoch_start()
        for index in range(_STEPS + 1):
            started = time.monotonic()
            batch = next(batches, None)
            if batch is None or started - began > _PATIENCE_S:
                break
            batch = _on(device, batch)
            with _precision(settings, device):
                loss = task.training_step(batch, index)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            optimiser.step()
            task.on_train_batch_end(loss, batch, index)
            loss.item()  # waits for the device
            taken.append(time.monotonic() - started)
    return statistics.median(taken[len(taken) // 2 :])


@torch.no_grad()
def _seconds_a_look(
    network: Segmenter, loader: Batches, settings: Settings, device: torch.device
) -> float:
    """Of one validation batch: the second where there is one, since the first warms up."""
    task = SegmentationTask(network, settings, steps_per_epoch=1).to(device)
    task.on_validation_epoch_start()
    taken = math.inf
    batches = iter(loader)
    for index in range(2):
        started = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            break
        with _precision(settings, device):
            task.validation_step(_on(device, batch), index)
        task.validation[-1].tolist()  # waits for the device
        taken = time.monotonic() - started
    return taken


def _on(device: torch.device, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def _precision(settings: Settings, device: torch.device) -> "torch.autocast | nullcontext[None]":
    if in_bfloat16(settings, device):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
