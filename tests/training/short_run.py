"""A training of seconds, for tests that kill it: imported by the processes that they start."""

import os
import sys
from pathlib import Path

import torch
from rich.console import Console

from hymunet import HyMUNet
from hymunet.training.fit import fit
from hymunet.training.initial import GivenNetwork
from hymunet.training.options import TrainOptions

OPTIONS = TrainOptions(
    image_size=32, epochs=4, batch_size=4, drop_path=0.3, workers=0, device="cpu", seed=1
)
TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}


def make_toy(settings, in_channels, spatial_dims):
    sizes = TOY | {"spatial_dims": spatial_dims, "drop_path": settings.drop_path}
    return HyMUNet(in_channels, 1, **sizes)


def train_toy(data, output, options=OPTIONS, console=None):
    """A run of a network of a few thousand weights, on one thread."""
    torch.set_num_threads(1)  # a forked process has none but its own
    toy = GivenNetwork("toy", make_toy)
    return fit(Path(data), Path(output), options, given_network=toy, console=console)


def train_quietly(data, output, options=OPTIONS):
    """As a process does it whose output nobody reads."""
    with open(os.devnull, "w") as nowhere:
        train_toy(data, output, options, Console(file=nowhere))


if __name__ == "__main__":
    train_quietly(*sys.argv[1:])
