"""Any module as a `Segmenter`: its facts are stated beside it, and what it returns is checked."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hymunet.errors import HyMUNetError
from hymunet.network.model_file import BUILDER, find_model, load_weights, read_info
from hymunet.network.segmenter import Segmenter

_LEAST_SIDE = 64  # of the image a network is tried on; some have nothing to normalise in less
_DENSE = (
    nn.Linear,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True)
class AdaptedFacts:
    """The facts of an adapted network; see `hymunet.network.segmenter.NetworkFacts`."""

    in_channels: int
    num_classes: int
    spatial_dims: int
    activation: str
    stride: int
    conv_norm: str = ""

    @property
    def num_labels(self) -> int:
        """Values of a label map, the background included."""
        return self.num_classes + (self.activation == "sigmoid")


class AdaptedNetwork(Segmenter):
    """A module (B, in_channels, *spatial) -> (B, num_classes, *spatial), or a list whose first
    element is that, with the facts that training and prediction need.

    Args:
        network: The module.
        facts: What it is for.
        builder: Who built it, for messages and model files.
        size: Of the images it is built for; None: any multiples of the stride.

    Raises:
        HyMUNetError: If its logits of a black image are not of the shape that the facts say, or
            not finite.
    """

    def __init__(
        self,
        network: nn.Module,
        facts: AdaptedFacts,
        builder: str,
        size: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.config: AdaptedFacts = facts
        self.network, self.builder, self.size = network, builder, size
        self._head = self._try_out()

    @property
    def head(self) -> nn.Module | None:
        """The layer that makes the logits; None where it could not be told."""
        return self.network.get_submodule(self._head) if self._head else None

    def architecture(self) -> dict[str, Any]:
        """The facts and who built it, from which alone it cannot be built."""
        return {
            BUILDER: self.builder,
            **asdict(self.config),
            "size": None if self.size is None else list(self.size),
        }

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the image's size; auxiliary outputs of the module are left aside."""
        logits = self.network(image)
        return logits[0] if isinstance(logits, (list, tuple)) else logits

    def _try_out(self) -> str:
        """Name of the module that made the logits of a black image: the dense one that ran last,
        where it has as many outputs as there are classes; else empty."""
        facts = self.config
        side = -(-_LEAST_SIDE // facts.stride) * facts.stride
        image = torch.zeros(1, facts.in_channels, *(self.size or (side,) * facts.spatial_dims))
        ran: list[str] = []
        hooks = [
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
            for name, module in self.network.named_modules()
            if name and isinstance(module, _DENSE)
        ]
        try:
            with _evaluating(self.network), torch.no_grad():
                logits = self(image)
        except HyMUNetError:
            raise
        except Exception as error:
            raise HyMUNetError(
                f"{self.builder} cannot take an image {tuple(image.shape)}: "
                f"{type(error).__name__}: {error}; a network must take (batch, in_channels, "
                f"*spatial) with sides that are multiples of its stride, {facts.stride} here (a "
                "builder states another by an attribute `stride`)"
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
        wanted = (1, facts.num_classes, *image.shape[2:])
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise HyMUNetError(
                f"{self.builder} must give logits {wanted} of an image {tuple(image.shape)}, one "
                f"channel a class at the image's size, but gave {came}"
            )
        if not torch.isfinite(logits).all():
            raise HyMUNetError(f"{self.builder} gives logits of a black image that are not finite")
        last = self.network.get_submodule(ran[-1]) if ran else None
        outputs = getattr(last, "out_channels", getattr(last, "out_features", None))
        return ran[-1] if outputs == facts.num_classes else ""


def load_into(path: Path | str, network: Segmenter) -> dict[str, Any]:
    """Gives a network that has been built the weights of a model file; returns its metadata.

    For networks that the file names and cannot build.

    Raises:
        HyMUNetError: As `read_info`, or if the file is of another network, naming what differs.
    """
    path = find_model(path)
    info = read_info(path)
    # as JSON gives it back: tuples are lists there
    own = json.loads(json.dumps(network.architecture()))
    there = info["architecture"]
    differ = [
        f"{name} is {there.get(name)!r} there and {own.get(name)!r} here"
        for name in dict.fromkeys((*own, *there))
        if own.get(name) != there.get(name)
    ]
    if differ:
        raise HyMUNetError(f"{path} is of another network: {'; '.join(differ)}")
    load_weights(path, network)
    network.eval()
    return info


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, so that batch statistics stay as they are."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
