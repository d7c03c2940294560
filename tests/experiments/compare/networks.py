"""Small networks that take part in comparisons, as a user's file in the working folder would."""

from pathlib import Path

SOURCE = '''
import hashlib
from pathlib import Path

import torch
from torch import nn


class Small(nn.Module):
    """Two convolutions; writes down what it is trained on."""

    def __init__(self, in_channels, num_classes, name, width=8):
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.last = nn.Conv2d(width, num_classes, 1)
        self.name = name

    def forward(self, image):
        if self.training:
            with open(f"{self.name}.log", "a") as file:
                file.write(hashlib.sha256(image.numpy().tobytes()).hexdigest() + "\\n")
        return self.last(torch.relu(self.first(image)))


class Stumbling(Small):
    """Raises `error` in the fourth training step, until there is a file `mended`."""

    error = RuntimeError

    def forward(self, image):
        log = Path(f"{self.name}.log")
        steps = len(log.read_text().splitlines()) if log.exists() else 0
        if self.training and steps == 3 and not Path("mended").exists():
            raise self.error("a deliberate\\nfailure")
        return super().forward(image)


class Interrupted(Stumbling):
    error = KeyboardInterrupt


def one(in_channels, num_classes):
    return Small(in_channels, num_classes, "one")


def wide(in_channels, num_classes, **rest):
    return [Small(in_channels, num_classes, "wide", width=12)][0]


def wider(in_channels, num_classes):
    return Small(in_channels, num_classes, "wider", width=64)


def stumbling(in_channels, num_classes):
    return Stumbling(in_channels, num_classes, "stumbling")


def interrupted(in_channels, num_classes):
    return Interrupted(in_channels, num_classes, "interrupted")


one.stride = wider.stride = wide.stride = stumbling.stride = interrupted.stride = 8


def sixty_four(in_channels, num_classes):
    return Small(in_channels, num_classes, "sixty_four")


sixty_four.stride = 64


def no_arguments():
    return one(3, 1)


def no_module(in_channels, num_classes):
    return 7


def half_size(in_channels, num_classes):
    return nn.Conv2d(in_channels, num_classes, 2, stride=2)


def not_finite(in_channels, num_classes):
    network = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.constant_(network.bias, float("nan"))
    return network


def picky(in_channels, num_classes):
    return nn.Conv3d(in_channels, num_classes, 1)


class Held(nn.Module):
    """Holds 64 MiB for a while."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(3, 1, 1)

    def forward(self, image):
        held = torch.ones(64, 2**18)
        return self.last(image) + held.sum() * 0


def held(in_channels, num_classes):
    return Held()


def fatal(in_channels, num_classes):
    import os

    if os.environ.get("FATAL_SPARES") != str(os.getpid()):
        os._exit(3)
    return nn.Conv2d(in_channels, num_classes, 1)
'''


def write_networks(folder: Path) -> Path:
    """The module `small_networks`, in `folder`."""
    path = folder / "small_networks.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path
