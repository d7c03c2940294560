"""From decoded pixels to what the network reads, and back: one torch module for all.

Training, prediction and export use the same; its settings are kept in the model file.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hymunet.errors import HyMUNetError

RESIZE_POLICIES = ("squeeze", "letterbox", "native")
# what the largest value of an integer type stands for; floats are taken as they are
_FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}


@dataclass(frozen=True)
class PreprocessConfig:
    """How pixels become network input.

    Args:
        image_size: (height, width) that pictures are resized to; None with `native`.
        resize: `squeeze` stretches to image_size; `letterbox` keeps the aspect ratio and pads;
            `native` leaves pixels as they are (volumes, small images).
        normalisation: `dataset` subtracts `mean` and divides by `std` of the training images;
            `image` uses each image's own, a channel at a time (MRI has no absolute scale).
        mean: A value a channel, in the unit range for 8- and 16-bit images.
        std: A value a channel.
        multiple: Sides are padded to a multiple of this, the network's stride.

    Raises:
        HyMUNetError: If a field is out of range or two contradict each other.
    """

    image_size: tuple[int, ...] | None = None
    resize: str = "native"
    normalisation: str = "dataset"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    multiple: int = 16

    def __post_init__(self) -> None:
        for name in ("image_size", "mean", "std"):
            value = getattr(self, name)
            if value is None and name == "image_size":
                continue
            if not isinstance(value, (list, tuple)) or not all(map(_is_number, value)):
                raise HyMUNetError(f"{name} must be a list of numbers, not {value!r}")
            object.__setattr__(self, name, tuple(value))
        if self.resize not in RESIZE_POLICIES:
            raise HyMUNetError(f"resize must be one of {RESIZE_POLICIES}, not {self.resize!r}")
        if (self.image_size is None) != (self.resize == "native"):
            raise HyMUNetError(
                f"resize={self.resize!r} and image_size={self.image_size} contradict each other: "
                "'native' takes no image_size, the other policies need one"
            )
        if self.image_size is not None and (
            len(self.image_size) != 2 or not all(_is_count(side) for side in self.image_size)
        ):
            raise HyMUNetError(
                f"image_size must be (height, width) in pixels, not {self.image_size}; volumes "
                "are used at their native size"
            )
        if self.normalisation not in ("dataset", "image"):
            raise HyMUNetError(
                f"normalisation must be 'dataset' or 'image', not {self.normalisation!r}"
            )
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if not finite or not self.std or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise HyMUNetError(
                "mean and std must be as long as each other, finite, and std positive, not "
                f"{self.mean} and {self.std}"
            )
        if not _is_count(self.multiple):
            raise HyMUNetError(f"multiple must be a whole number from 1, not {self.multiple!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class Preprocess(nn.Module):
    """Resizes, normalises and pads; `restore` brings the network's output back.

    Args of forward: image (B, channels, *spatial), uint8, uint16 or float.
    Returns of forward: float32 (B, channels, *network size), sides multiples of `multiple`.
    """

    def __init__(self, config: PreprocessConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """From the `preprocess` entry of a model file.

        Raises:
            HyMUNetError: If it has an entry that this version does not know, or an impossible one.
        """
        unknown = sorted(set(values) - {field.name for field in fields(PreprocessConfig)})
        if unknown:
            raise HyMUNetError(
                f"the preprocessing has {', '.join(unknown)}, which this version does not know; "
                "update hymunet"
            )
        return cls(PreprocessConfig(**values))

    def to_dict(self) -> dict[str, Any]:
        """For the `preprocess` entry of a model file."""
        return asdict(self.config)

    def forward(self, image: Tensor) -> Tensor:
        return self.pad(self.normalise(self.resize(to_unit_range(image))))

    def resized_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the picture inside the network's input, for an image of `size`; without pads.

        Raises:
            HyMUNetError: If a volume is to be resized to an image_size, which pictures have.
        """
        target = self.config.image_size
        if target is None:
            return tuple(size)
        if len(size) != len(target):
            raise HyMUNetError(
                f"an image of size {size} cannot be resized to (height, width) {target}; volumes "
                "are used at their native size (resize='native')"
            )
        if self.config.resize == "squeeze":
            return target
        scale = min(to / side for to, side in zip(target, size, strict=True))
        return tuple(
            min(to, max(1, round(side * scale))) for to, side in zip(target, size, strict=True)
        )

    def resize(self, image: Tensor) -> Tensor:
        """(B, C, *spatial) float -> (B, C, *resized_size), antialiased bilinear."""
        size = self.resized_size(tuple(image.shape[2:]))
        if size == tuple(image.shape[2:]):
            return image
        return F.interpolate(image, size=size, mode="bilinear", antialias=True)

    def resize_labels(self, labels: Tensor, num_labels: int) -> Tensor:
        """Label map (B, *spatial) -> (B, *resized_size) uint8: the class that covers most of each
        new pixel, so that thin structures do not fray as under nearest-neighbour sampling.

        Raises:
            HyMUNetError: If a label is not below num_labels.
        """
        size = self.resized_size(tuple(labels.shape[1:]))
        classes = labels.unique().tolist()
        if classes[-1] >= num_labels:
            raise HyMUNetError(
                f"labels reach {classes[-1]}, but there are {num_labels} classes, background "
                "included"
            )
        if size == tuple(labels.shape[1:]):
            return labels.to(torch.uint8)
        resized = labels.new_zeros((labels.shape[0], *size), dtype=torch.uint8)
        most = torch.zeros(resized.shape, device=labels.device)
        for label in classes:  # one at a time: all of them at once fill the memory
            share = self.resize((labels == label).float()[:, None])[:, 0]
            # a tie, up to rounding, goes to the structure, as with the threshold p >= 0.5
            wins = share > most - 1e-6
            resized[wins] = label
            most = torch.maximum(most, share)
        return resized

    def normalise(self, image: Tensor) -> Tensor:
        """Zero mean and unit deviation, by the training images' statistics or the image's own."""
        shape = (1, -1, *[1] * (image.ndim - 2))
        if self.config.normalisation == "image":
            axes = tuple(range(2, image.ndim))
            # a constant image becomes 0 whatever its unit: a deviation so small that rounding in
            # the resize can cause it counts as none
            floor = 1e-5 * image.abs().amax(dim=axes, keepdim=True) + 1e-30
            deviation, mean = torch.std_mean(image, dim=axes, correction=0, keepdim=True)
            return (image - mean) / torch.maximum(deviation, floor)
        mean = torch.tensor(self.config.mean, device=image.device, dtype=image.dtype)
        std = torch.tensor(self.config.std, device=image.device, dtype=image.dtype)
        return (image - mean.view(shape)) / std.view(shape)

    def pad(self, image: Tensor) -> Tensor:
        """Zeros (the mean) at the far ends, to image_size under letterbox and to the multiple."""
        size = self.config.image_size or tuple(image.shape[2:])
        pads: list[int] = []
        for side, at_least in zip(reversed(image.shape[2:]), reversed(size), strict=True):
            multiple = self.config.multiple
            pads += [0, -(-max(side, at_least) // multiple) * multiple - side]
        return F.pad(image, pads) if any(pads) else image

    def restore(self, probability: Tensor, size: tuple[int, ...]) -> Tensor:
        """Probabilities (B, K, *network size) -> (B, K, *size), the input's own grid: pads cut off,
        then bilinear. Probabilities and not masks, so that borders stay smooth."""
        inner = self.resized_size(size)
        inside = [slice(0, side) for side in inner]
        probability = probability[(slice(None), slice(None), *inside)]
        if tuple(inner) == tuple(size):
            return probability
        return F.interpolate(probability, size=tuple(size), mode="bilinear", antialias=True)


def to_unit_range(image: Tensor) -> Tensor:
    """uint8 and uint16 -> float32 in [0, 1]; floats -> float32, unchanged.

    Raises:
        HyMUNetError: If the type is none of these.
    """
    if image.is_floating_point():
        return image.float()
    if image.dtype not in _FULL_SCALE:
        raise HyMUNetError(
            f"an image must be uint8, uint16 or float, but it is {image.dtype}; convert it first"
        )
    return image.float() / _FULL_SCALE[image.dtype]
