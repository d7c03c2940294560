"""From decoded pixels to what the network reads, and back: one torch module for training, prediction
and export alike, kept in the model file."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RESIZE_POLICIES = ("squeeze", "letterbox", "native")
# what the largest value of an integer type stands for; floats are taken as they are
_FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}


@dataclass(frozen=True)
class PreprocessConfig:
    """How pixels become network input.

    Args:
        image_size: (height, width) the network sees; None with `native`.
        resize: `squeeze` stretches to image_size; `letterbox` keeps the aspect ratio and pads;
            `native` leaves pixels as they are (volumes, small images).
        normalisation: `dataset` subtracts `mean` and divides by `std` of the training images;
            `image` uses each image's own, a channel at a time (MRI has no absolute scale).
        mean: A value a channel, in the unit range for 8- and 16-bit images.
        std: A value a channel.
        multiple: Sides are padded to a multiple of this, the network's stride.

    Raises:
        ValueError: If a field is out of range or two contradict each other.
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
            object.__setattr__(self, name, None if value is None else tuple(value))
        if self.resize not in RESIZE_POLICIES:
            raise ValueError(f"resize must be one of {RESIZE_POLICIES}, not {self.resize!r}")
        if (self.image_size is None) != (self.resize == "native"):
            raise ValueError(
                f"resize={self.resize!r} and image_size={self.image_size} contradict each other: "
                "'native' takes no image_size, the other policies need one"
            )
        if self.image_size is not None and (
            len(self.image_size) != 2 or min(self.image_size) < 1
        ):
            raise ValueError(
                f"image_size must be (height, width) in pixels, not {self.image_size}; volumes "
                "are used at their native size"
            )
        if self.normalisation not in ("dataset", "image"):
            raise ValueError(
                f"normalisation must be 'dataset' or 'image', not {self.normalisation!r}"
            )
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(
                f"mean and std must be as long as each other and std positive, not {self.mean} "
                f"and {self.std}"
            )


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
        """From the `preprocess` entry of a model file."""
        return cls(PreprocessConfig(**values))

    def to_dict(self) -> dict[str, Any]:
        """For the `preprocess` entry of a model file."""
        return asdict(self.config)

    def forward(self, image: Tensor) -> Tensor:
        return self.pad(self.normalise(self.resize(to_unit_range(image))))

    def resized_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the picture inside the network's input, for an image of `size`; without pads."""
        target = self.config.image_size
        if target is None:
            return tuple(size)
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
        new pixel, so that thin structures do not fray as under nearest-neighbour sampling."""
        size = self.resized_size(tuple(labels.shape[1:]))
        if size == tuple(labels.shape[1:]):
            return labels.to(torch.uint8)
        one_hot = F.one_hot(labels.long(), num_labels).movedim(-1, 1).float()
        shares = F.interpolate(one_hot, size=size, mode="bilinear", antialias=True)
        # a tie goes to the structure, not to the background, as the threshold p >= 0.5 does
        return (num_labels - 1 - shares.flip(1).argmax(dim=1)).to(torch.uint8)

    def normalise(self, image: Tensor) -> Tensor:
        """Zero mean and unit deviation, by the training images' statistics or the image's own."""
        shape = (1, -1, *[1] * (image.ndim - 2))
        if self.config.normalisation == "image":
            axes = tuple(range(2, image.ndim))
            deviation, mean = torch.std_mean(image, dim=axes, correction=0, keepdim=True)
            return (image - mean) / deviation.clamp(min=1e-6)  # a constant image becomes 0
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
        probability = probability[(..., *(slice(0, side) for side in inner))]
        if tuple(inner) == tuple(size):
            return probability
        return F.interpolate(probability, size=tuple(size), mode="bilinear", antialias=True)


def to_unit_range(image: Tensor) -> Tensor:
    """uint8 and uint16 -> float32 in [0, 1]; floats -> float32, unchanged.

    Raises:
        ValueError: If the type is none of these.
    """
    if image.is_floating_point():
        return image.float()
    if image.dtype not in _FULL_SCALE:
        raise ValueError(
            f"an image must be uint8, uint16 or float, but it is {image.dtype}; convert it first"
        )
    return image.float() / _FULL_SCALE[image.dtype]
