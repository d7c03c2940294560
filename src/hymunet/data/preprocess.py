"""From decoded pixels to what the network reads, and back: one torch module for all.

Training, prediction and export use the same; its settings are kept in the model file.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hymunet.data.resample import interpolate, same_size
from hymunet.errors import HyMUNetError

RESIZE_POLICIES = ("squeeze", "letterbox", "native", "window")
NORMALISATIONS = ("dataset", "image", "nonzero")
Spacing = tuple[float, ...] | None
# what the largest value of an integer type stands for; floats are taken as they are
_FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}


@dataclass(frozen=True)
class PreprocessConfig:
    """How pixels become network input.

    Args:
        image_size: (height, width) that pictures are resized to; None with the last two policies.
        resize: `squeeze` stretches to image_size; `letterbox` keeps the aspect ratio and pads;
            `native` leaves pixels as they are (volumes, small images); `window` brings them to
            spacing_mm, and the network reads them in windows of patch_size.
        normalisation: `dataset` subtracts `mean` and divides by `std` of the training images;
            `image` uses each image's own, a channel at a time (MRI has no absolute scale);
            `nonzero` those of the pixels that are not 0, and leaves 0 where it is (skull-stripped
            MRI, whose surroundings would else set the scale).
        mean: A value a channel, in the unit range for 8- and 16-bit images.
        std: A value a channel.
        multiple: Sides are padded to a multiple of this, the network's stride.
        patch_size: Sides of a window, multiples of `multiple`; `window` only.
        spacing_mm: Size of a pixel or voxel along each axis that images are resampled to; None
            leaves them on their own grid. `window` only.
        clip: Lowest and highest intensity that are told apart, in the image's own unit (a CT
            window); None: all.

    Raises:
        HyMUNetError: If a field is out of range or two contradict each other.
    """

    image_size: tuple[int, ...] | None = None
    resize: str = "native"
    normalisation: str = "dataset"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    multiple: int = 16
    patch_size: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("image_size", "mean", "std", "patch_size", "spacing_mm", "clip"):
            value = getattr(self, name)
            if value is None and name not in ("mean", "std"):
                continue
            if not isinstance(value, (list, tuple)) or not all(map(_is_number, value)):
                raise HyMUNetError(f"{name} must be a list of numbers, not {value!r}")
            object.__setattr__(self, name, tuple(value))
        if self.resize not in RESIZE_POLICIES:
            raise HyMUNetError(f"resize must be one of {RESIZE_POLICIES}, not {self.resize!r}")
        if (self.image_size is None) != (self.resize in ("native", "window")):
            raise HyMUNetError(
                f"resize={self.resize!r} and image_size={self.image_size} contradict each other: "
                "'native' and 'window' take no image_size, the other policies need one"
            )
        if self.image_size is not None and (
            len(self.image_size) != 2 or not all(_is_count(side) for side in self.image_size)
        ):
            raise HyMUNetError(
                f"image_size must be (height, width) in pixels, not {self.image_size}; volumes "
                "are used at their native size"
            )
        if self.normalisation not in NORMALISATIONS:
            raise HyMUNetError(
                f"normalisation must be one of {NORMALISATIONS}, not {self.normalisation!r}"
            )
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if not finite or not self.std or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise HyMUNetError(
                "mean and std must be as long as each other, finite, and std positive, not "
                f"{self.mean} and {self.std}"
            )
        if not _is_count(self.multiple):
            raise HyMUNetError(f"multiple must be a whole number from 1, not {self.multiple!r}")
        self._check_windows()

    @property
    def normalises_whole(self) -> bool:
        """Whether an image is normalised before patches are cut from it: its own statistics cannot
        be had from a patch."""
        return self.resize == "window" and self.normalisation != "dataset"

    def _check_windows(self) -> None:
        patch, spacing, clip = self.patch_size, self.spacing_mm, self.clip
        if (patch is None) != (self.resize != "window"):
            raise HyMUNetError(
                f"resize={self.resize!r} and patch_size={patch} contradict each other: 'window' "
                "needs a patch_size, the other policies take none"
            )
        if patch is not None and not all(_is_count(s) and s % self.multiple == 0 for s in patch):
            raise HyMUNetError(
                f"patch_size must be whole multiples of {self.multiple}, the network's stride, not "
                f"{patch}"
            )
        positive = spacing is None or all(0 < side < math.inf for side in spacing)
        if spacing is not None and (not positive or patch is None or len(spacing) != len(patch)):
            raise HyMUNetError(
                f"spacing_mm must be a length above 0 for each side of the patch_size {patch}, not "
                f"{spacing}"
            )
        if clip is not None and not (len(clip) == 2 and -math.inf < clip[0] < clip[1] < math.inf):
            raise HyMUNetError(f"clip must be (lowest, highest) intensity, not {clip}")


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

    def forward(self, image: Tensor, spacing_mm: Spacing = None) -> Tensor:
        return self.pad(self.normalise(self.resize(self.unit_range(image), spacing_mm)))

    def unit_range(self, image: Tensor) -> Tensor:
        """Intensities between the limits of `clip`, which are in the file's own unit, as float32;
        8- and 16-bit ones then in [0, 1]."""
        if self.config.clip is None:
            return to_unit_range(image)
        full_scale = _FULL_SCALE.get(image.dtype, 1.0)
        low, high = (limit / full_scale for limit in self.config.clip)
        return to_unit_range(image).clamp(low, high)

    def resized_size(self, size: tuple[int, ...], spacing_mm: Spacing = None) -> tuple[int, ...]:
        """Size of the picture inside the network's input, for an image of `size`; without pads.

        Args:
            size: Of the image.
            spacing_mm: Of the image, where it is known.

        Raises:
            HyMUNetError: If a volume is to be resized to an image_size, which pictures have, or an
                image of unknown spacing to a spacing.
        """
        target, wanted = self.config.image_size, self.config.spacing_mm
        if wanted is not None:
            if spacing_mm is None or len(spacing_mm) != len(size):
                raise HyMUNetError(
                    f"the model works at {_by(wanted)} mm, but this image of size {_by(size)} does "
                    "not say how large its pixels are; save it in a format that does (NIfTI, "
                    "DICOM), with its spacing"
                )
            return tuple(
                max(1, round(side * own / to))
                for side, own, to in zip(size, spacing_mm, wanted, strict=True)
            )
        if target is None:
            return tuple(size)
        if len(size) != len(target):
            raise HyMUNetError(
                f"an image of size {size} cannot be resized to (height, width) {target}; volumes "
                "are used at their native size (resize='native')"
            )
        if self.config.resize == "squeeze":
            return target
        # the smaller of the two scales, in whole numbers: an exported graph knows sizes as symbols
        (height, width), (high, wide) = size, target
        fitted = (_rounded(height * wide, width), _rounded(width * high, height))
        return tuple(
            torch.sym_min(to, torch.sym_max(1, side))
            for to, side in zip(target, fitted, strict=True)
        )

    def resize(self, image: Tensor, spacing_mm: Spacing = None) -> Tensor:
        """(B, C, *spatial) float -> (B, C, *resized_size), antialiased and linear along each
        axis."""
        return interpolate(image, self.resized_size(tuple(image.shape[2:]), spacing_mm))

    def resize_labels(self, labels: Tensor, num_labels: int, spacing_mm: Spacing = None) -> Tensor:
        """Label map (B, *spatial) -> (B, *resized_size) uint8: the class that covers most of each
        new pixel, so that thin structures do not fray as under nearest-neighbour sampling.

        Raises:
            HyMUNetError: If a label is not below num_labels.
        """
        size = self.resized_size(tuple(labels.shape[1:]), spacing_mm)
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
            share = interpolate((labels == label).float()[:, None], size)[:, 0]
            # a tie, up to rounding, goes to the structure, as with the threshold p >= 0.5
            wins = share > most - 1e-6
            resized[wins] = label
            most = torch.maximum(most, share)
        return resized

    def normalise(self, image: Tensor) -> Tensor:
        """Zero mean and unit deviation, by the training images' statistics or the image's own."""
        shape = (1, -1, *[1] * (image.ndim - 2))
        if self.config.normalisation == "dataset":
            mean = torch.tensor(self.config.mean, device=image.device, dtype=image.dtype)
            std = torch.tensor(self.config.std, device=image.device, dtype=image.dtype)
            return (image - mean.view(shape)).div_(std.view(shape))
        axes = tuple(range(2, image.ndim))
        # a constant image becomes 0 whatever its unit: a deviation so small that rounding in the
        # resize can cause it counts as none
        low, high = (f(image, dim=axes, keepdim=True) for f in (torch.amin, torch.amax))
        floor = 1e-5 * torch.maximum(-low, high) + 1e-30
        # in place where the tensor is our own: volumes of four channels are large
        if self.config.normalisation == "image":
            if torch.compiler.is_compiling():
                pixels = math.prod(image.shape[2:])
                mean = _total(image) / pixels
                deviation = (_total((image - mean).square()) / pixels).sqrt()
            else:
                deviation, mean = torch.std_mean(image, dim=axes, correction=0, keepdim=True)
            return (image - mean).div_(torch.maximum(deviation, floor))
        inside = image != 0
        count = inside.sum(dim=axes, keepdim=True).clamp(min=1)
        mean = _total(image) / count
        centred = (image - mean).mul_(inside)
        deviation = (_total(centred.square()) / count).sqrt()
        return centred.div_(torch.maximum(deviation, floor))

    def pad(self, image: Tensor) -> Tensor:
        """Zeros (the mean) at the far ends, to image_size under letterbox and to the multiple; not
        under `window`, whose windows are multiples already."""
        if self.config.resize == "window":
            return image
        there = tuple(image.shape[2:])
        multiple = self.config.multiple
        # not -(-side // multiple): ONNX divides towards zero
        size = tuple(
            (side + multiple - 1) // multiple * multiple for side in self.config.image_size or there
        )
        if same_size(there, size):
            return image
        ends = zip(reversed(there), reversed(size), strict=True)
        return F.pad(image, [pad for side, whole in ends for pad in (0, whole - side)])

    def restore(
        self, probability: Tensor, size: tuple[int, ...], spacing_mm: Spacing = None
    ) -> Tensor:
        """Probabilities (B, K, *network size) -> (B, K, *size), the input's own grid: pads cut off,
        then linear. Probabilities and not masks, so that borders stay smooth."""
        inner = self.resized_size(size, spacing_mm)
        inside = [slice(0, side) for side in inner]
        return interpolate(probability[(slice(None), slice(None), *inside)], size)


def _total(image: Tensor) -> Tensor:
    """Sum over the spatial axes, which stay with length 1; in exported graphs an axis at a time,
    since onnxruntime adds up one number after the other: over 480 x 640 pixels at once, the
    rounding of a mean moved probabilities by 1e-3."""
    axes = tuple(range(2, image.ndim))
    if not torch.compiler.is_compiling():
        return image.sum(dim=axes, keepdim=True)
    for axis in reversed(axes):
        image = image.sum(dim=axis, keepdim=True)
    return image


def _rounded(numerator: int, denominator: int) -> int:
    """numerator / denominator to the nearest whole number, the even one of two, as `round` does;
    by arithmetic that holds for symbols too."""
    doubled = 2 * numerator + denominator
    nearest, rest = doubled // (2 * denominator), doubled % (2 * denominator)
    return nearest - (1 - torch.sym_min(rest, 1)) * (nearest % 2)


def _by(sides: tuple[float, ...]) -> str:
    return " x ".join(f"{side:g}" for side in sides)


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
