"""What training, prediction and evaluation ask of a network, whoever has built it.

`HyMUNet` is one; `hymunet.experiments.compare` makes one of any other module. Whatever is written
against `Segmenter` treats both alike.
"""

from typing import Any, Protocol

from torch import Tensor, nn


class NetworkFacts(Protocol):
    """Sizes that whoever feeds a network has to know; `HyMUNetConfig` says them and more."""

    @property
    def in_channels(self) -> int:
        """Channels of the image."""

    @property
    def num_classes(self) -> int:
        """Output channels; the background counts as one under softmax."""

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""

    @property
    def activation(self) -> str:
        """sigmoid or softmax."""

    @property
    def stride(self) -> int:
        """Sides of an image must be multiples of it."""

    @property
    def num_labels(self) -> int:
        """Values of a label map, the background included."""

    @property
    def conv_norm(self) -> str:
        """batch, instance or group; empty where it is not known."""


class Segmenter(nn.Module):
    """A network whose `config` states these facts, and whose forward takes an image
    (B, in_channels, *spatial) to logits (B, num_classes, *spatial); in training mode perhaps to a
    list of them, the finest first, which deep supervision weighs by halves.

    A submodule called `head`, where there is one, makes the logits; the optimiser keeps it apart.
    """

    config: NetworkFacts

    def architecture(self) -> dict[str, Any]:
        """What a model file says of the network beside its weights: plain values by name."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits of a batch of images."""
        raise NotImplementedError
