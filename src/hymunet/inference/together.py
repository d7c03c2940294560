"""Several pictures through the network in one pass, whatever their sizes: a small network on a CPU
spends much of a pass on what does not depend on how many pictures there are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hymunet.data.image_io import Image
from hymunet.inference.predictor import Predictor

_NOTHING = np.empty(0, np.uint8)


@dataclass(frozen=True)
class Prepared:
    """A picture as each of the models sees it; its own pixels are no longer needed.

    Args:
        image: What is known of it, without pixels.
        size: (height, width).
        inputs: One a model, (1, channels, height, width) of that model's own input.
    """

    image: Image
    size: tuple[int, ...]
    inputs: tuple[Tensor, ...]


def can_join(predictor: Predictor) -> bool:
    """Whether pictures are seen whole by every model, once: not in windows, not in mirrorings."""
    whole = all(member.preprocess.config.patch_size is None for member in predictor.members)
    return whole and not predictor.tta and predictor.config.spatial_dims == 2


@torch.inference_mode()
def prepare(predictor: Predictor, image: Image) -> Prepared:
    """Preprocesses a decoded picture.

    Args:
        predictor: One that `can_join`.
        image: As `Predictor.decode` returned it.
    """
    pixels = predictor.batch_of_one(image)
    inputs = tuple(member.preprocess(pixels, image.spacing_mm) for member in predictor.members)
    return Prepared(replace(image, pixels=_NOTHING), tuple(image.pixels.shape[1:]), inputs)


@torch.inference_mode()
def predict_together(predictor: Predictor, pictures: Sequence[Prepared]) -> Iterator[np.ndarray]:
    """Probabilities (num_classes, height, width) float32 of each picture on its own grid, in order.

    They differ from those of one at a time by rounding alone. Pictures whose inputs have one size
    go through the network together; the results are enlarged one by one, so that no more than one
    of them is held at full size.

    Raises:
        NonFiniteError: If the network's output is not finite for one of them.
    """
    seen = [
        _in_groups(predictor, index, [picture.inputs[index] for picture in pictures])
        for index in range(len(predictor.members))
    ]
    for number, picture in enumerate(pictures):
        total: Tensor | None = None
        for member, outputs in zip(predictor.members, seen, strict=True):
            spacing_mm = picture.image.spacing_mm
            one = member.preprocess.restore(outputs[number], picture.size, spacing_mm)
            total = one if total is None else total.add_(one)
        assert total is not None  # there is a model
        yield total.div_(len(seen))[0].cpu().numpy() if len(seen) > 1 else total[0].cpu().numpy()


def _in_groups(predictor: Predictor, index: int, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What one of the models makes of each input (1, channels, h, w), inputs of one size in one
    pass: (1, num_classes, h, w) each."""
    network = predictor.members[index].network
    sizes: dict[tuple[int, ...], list[int]] = {}
    for number, one in enumerate(inputs):
        sizes.setdefault(tuple(one.shape), []).append(number)
    outputs: dict[int, Tensor] = {}
    for numbers in sizes.values():
        batch = torch.cat([inputs[number] for number in numbers])
        probability = predictor.network_probability(network, batch)
        outputs.update(zip(numbers, probability.split(1), strict=True))
    return [outputs[number] for number in range(len(inputs))]
