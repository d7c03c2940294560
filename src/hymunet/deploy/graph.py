"""What an exported file computes: from a decoded picture to probabilities and a mask at its size.

The module is made of the parts that `Predictor` uses, preprocessing included, so that a file and
`predict` cannot drift apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.inference.ensemble import Member
from hymunet.inference.predictor import Predictor

PICTURE = "picture"
WINDOW = "window"


def interface_of(preprocess: PreprocessConfig, spatial_dims: int) -> str:
    """`picture`: a decoded 8-bit picture of any size goes in; `window`: what the network itself
    reads, and whoever runs the file prepares it.

    Windows are for volumes, for pictures that are read in windows, and for intensities of their own
    unit, which 8 bits cannot hold: the statistics or limits then lie outside of what 8 bits mean.
    """
    if spatial_dims != 2 or preprocess.resize == "window":
        return WINDOW
    if preprocess.clip is not None and not 0 <= min(preprocess.clip) < max(preprocess.clip) <= 255:
        return WINDOW
    own_unit = any(not 0.0 <= mean <= 1.0 for mean in preprocess.mean)
    return WINDOW if preprocess.normalisation == "dataset" and own_unit else PICTURE


class PictureGraph(nn.Module):
    """Pictures to probabilities and masks, for export.

    Args of forward: image (batch, height, width, channels) uint8, any size.
    Returns of forward: probability (batch, structures, height, width) float32, and mask (batch,
        height, width) uint8, cut at the threshold (sigmoid; of nested structures the last one that
        reaches it) or the most probable class (softmax), in the values that masks are stored in.

    Args:
        member: The model.
        threshold: Probability from which a pixel belongs to a structure.
        values: Class index -> value in the mask, each below 256.
    """

    def __init__(self, member: Member, threshold: float, values: Sequence[int]) -> None:
        super().__init__()
        self.window = WindowGraph(member)
        self.preprocess: Preprocess = member.preprocess
        self.threshold = threshold
        self.softmax = member.network.config.activation == "softmax"
        self.values = tuple(values)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = image.permute(0, 3, 1, 2)
        seen = self.window(self.preprocess(pixels))
        probability = self.preprocess.restore(seen, tuple(pixels.shape[2:]))
        if self.softmax:
            label = probability.argmax(dim=1)
            belongs = [label == k for k in range(len(self.values))][1:]
        else:
            belongs = [one >= self.threshold for one in probability.unbind(1)]
        # a choice a structure, as `Predictor.cut` does: of nested ones the last that holds
        mask = torch.full_like(belongs[0], self.values[0], dtype=torch.uint8)
        for inside, value in zip(belongs, self.values[1:], strict=True):
            mask = torch.where(inside, torch.full_like(mask, value), mask)
        return probability, mask


class WindowGraph(nn.Module):
    """What the network reads, (batch, channels, *spatial) float32, to probabilities (batch,
    structures, *spatial)."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.network = member.network
        self.softmax = member.network.config.activation == "softmax"

    def forward(self, image: Tensor) -> Tensor:
        logits = self.network(image).float()
        return torch.softmax(logits, dim=1) if self.softmax else torch.sigmoid(logits)


def traced(
    graph: nn.Module, preprocess: PreprocessConfig, config: Any
) -> tuple[torch.export.ExportedProgram, dict[int, Any]]:
    """The graph as a program of torch for any batch, and any size where sizes may differ.

    Returns:
        The program, and the axes of its input that are dynamic, as `torch.export` takes them.
    """
    dynamic: dict[int, Any]
    if isinstance(graph, PictureGraph):
        # sides that are no multiple of anything, and unlike the network's
        example = torch.zeros(2, 67, 83, config.in_channels, dtype=torch.uint8)
        dynamic = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    else:
        fixed = preprocess.patch_size
        dynamic = {0: torch.export.Dim("batch")}
        if fixed is None:
            sides = [3 + axis for axis in range(config.spatial_dims)]
            size = tuple(side * preprocess.multiple for side in sides)
            for axis in range(config.spatial_dims):
                name = f"blocks_{axis}"
                dynamic[2 + axis] = preprocess.multiple * torch.export.Dim(name)
        else:
            size = fixed
        example = torch.zeros(2, config.in_channels, *size)
    with torch.no_grad():
        program = torch.export.export(
            graph.eval(),
            (example,),
            dynamic_shapes=(dynamic,),
            strict=False,
            # sizes are checked when the program runs; as guards they would have to be proved now
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    return program, dynamic


def graph_of(predictor: Predictor, metadata: Mapping[str, Any]) -> nn.Module:
    """The graph that the metadata of a file speak of."""
    member = predictor.members[0]
    if metadata["interface"] == PICTURE:
        return PictureGraph(member, predictor.threshold, metadata["mask_values"])
    return WindowGraph(member)


def mask_values(info: Mapping[str, Any], num_labels: int) -> tuple[list[int], bool]:
    """Class index -> value that a mask of 8 bits holds for it, and whether these are the values
    that `predict` writes: not where one is above 255, and then the mask holds class indices."""
    from hymunet.inference.outputs import stored_values

    stored = stored_values(info, num_labels)
    if stored is None:
        return ([0, 255] if num_labels == 2 else list(range(num_labels))), True
    if max(stored) > 255:
        return list(range(num_labels)), False
    return list(stored), True
