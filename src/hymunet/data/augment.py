"""Augmentation of a training sample: image, label and valid area together, as a function of a seed.

MONAI's transforms where they fit; their random state is set for each sample, so a sample depends
on (seed, epoch, case) and never on a worker, a rank or what was drawn before.
"""

from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    Randomizable,
    RandRotate90d,
)
from scipy.ndimage import gaussian_filter
from torch import Tensor

from hymunet.data.augment_marks import RandHairs, RandJpeg
from hymunet.errors import HyMUNetError

_SPATIAL = ("image", "label", "valid")


class RandColour(Randomizable, MapTransform):
    """Colour cast, brightness, saturation and a linear illumination gradient of an RGB image.

    x * gain[c] * (1 + slope . position), then blended with its own grey; values stay in [0, 1].
    Cameras, lamps and skin differ by just such factors. Single-channel images get brightness and
    illumination only.
    """

    def __init__(self, prob: float = 0.8, cast: float = 0.15, light: float = 0.3) -> None:
        super().__init__(keys=("image",))
        self.prob, self.cast, self.light = prob, cast, light

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        image = data["image"]
        channels, *spatial = image.shape
        draw = self.R.uniform(-1.0, 1.0, size=channels + 2 + len(spatial))
        if self.R.uniform() >= self.prob:
            return data
        gain = (1.0 + self.light * draw[0]) * (1.0 + self.cast * draw[1 : channels + 1])
        image = image * torch.as_tensor(gain, dtype=image.dtype).view(-1, *[1] * len(spatial))
        for axis, (side, slope) in enumerate(zip(spatial, draw[channels + 2 :], strict=True)):
            ramp = 1.0 + self.light * float(slope) * torch.linspace(-1.0, 1.0, side)
            image = image * ramp.view(1, *(-1 if a == axis else 1 for a in range(len(spatial))))
        if channels == 3:
            grey = image.mean(dim=0, keepdim=True)
            image = grey + (1.0 + 2.0 * self.light * float(draw[channels + 1])) * (image - grey)
        return {**data, "image": image.clamp(0.0, 1.0)}


class RandBlur(Randomizable, MapTransform):
    """Gaussian blur of `sigma` pixels, drawn for each axis; the image is mirrored at its border.

    Not MONAI's RandGaussianSmoothd: that sets what lies outside to 0, which darkens the border.
    """

    def __init__(self, prob: float = 0.15, sigma: tuple[float, float] = (0.3, 1.2)) -> None:
        super().__init__(keys=("image",))
        self.prob, self.sigma = prob, sigma

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        image = data["image"]
        sigmas = self.R.uniform(*self.sigma, size=image.ndim - 1)
        if self.R.uniform() >= self.prob:
            return data
        blurred = gaussian_filter(image.numpy(), (0.0, *sigmas), mode="reflect")
        return {**data, "image": torch.from_numpy(blurred)}


class RandNoise(Randomizable, MapTransform):
    """Gaussian noise of up to `std` times the standard deviation of each channel.

    For volumes, whose units are arbitrary: a fixed deviation would be nothing in CT numbers and
    everything in diffusion coefficients.
    """

    def __init__(self, prob: float = 0.15, std: float = 0.15) -> None:
        super().__init__(keys=("image",))
        self.prob, self.std = prob, std

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.R.uniform() >= self.prob:
            return data
        image = data["image"]
        axes = tuple(range(1, image.ndim))
        strength = self.R.uniform(0.0, self.std) * image.std(dim=axes, correction=0, keepdim=True)
        noise = torch.from_numpy(self.R.standard_normal(image.shape).astype(np.float32))
        return {**data, "image": image + strength * noise}


class Augment:
    """Flips, quarter turns, an affine map, hairs, light and colour, gamma, blur, noise, JPEG.

    Args:
        spatial_dims: 2 or 3.
        intensity: Whether intensities are in [0, 1] (8- and 16-bit images), so that colour and
            gamma make sense, and stay there; volumes of arbitrary units get blur and noise only.
        square: Whether all sides are equal, so that quarter turns keep the size.
        hairs: Probability that hairs are drawn across a picture.
        jpeg: Probability that a picture is saved as JPEG and read again: 256 shades remain.
    """

    def __init__(
        self,
        spatial_dims: int,
        intensity: bool = True,
        square: bool = True,
        hairs: float = 0.0,
        jpeg: float = 0.0,
    ) -> None:
        self.intensity, self.square = intensity, square and spatial_dims == 2
        axes = range(spatial_dims)
        turn = np.pi if spatial_dims == 2 else np.pi / 9
        steps: list[Any] = [RandFlipd(_SPATIAL, prob=0.5, spatial_axis=axis) for axis in axes]
        if self.square:
            steps.append(RandRotate90d(_SPATIAL, prob=0.75, max_k=3))
        steps.append(
            RandAffined(
                _SPATIAL,
                prob=0.7,
                rotate_range=[turn / 6 if spatial_dims == 2 else turn] * (spatial_dims * 2 - 3),
                scale_range=[(-0.2, 0.25)] * spatial_dims,
                shear_range=[0.1] * (spatial_dims * (spatial_dims - 1)),
                translate_range=None,
                mode=("bilinear", "nearest", "nearest"),
                padding_mode="reflection",
            )
        )
        if intensity:  # in the order in which light meets them: skin, lamp, lens, sensor, file
            steps += [RandHairs(hairs)] if hairs else []
            steps += [RandColour(), RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.4))]
        steps.append(RandBlur())
        steps.append(RandGaussianNoised("image", prob=0.15, std=0.03) if intensity else RandNoise())
        steps += [RandJpeg(jpeg)] if jpeg else []
        self.compose = Compose(steps)

    def __call__(
        self, image: Tensor, label: Tensor, valid: Tensor, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One sample.

        Args:
            image: (channels, *spatial) float.
            label: (*spatial) uint8.
            valid: (*spatial) uint8, 1 where a pixel counts.
            seed: Below 2**32; equal seeds give equal samples.

        Returns:
            image float32, label and valid uint8, in the shapes given.

        Raises:
            HyMUNetError: If the sides differ, but were said to be equal.
        """
        if self.square and len(set(image.shape[1:])) > 1:
            raise HyMUNetError(
                f"an image of size {tuple(image.shape[1:])} does not keep its size when turned by "
                "90 degrees; construct Augment with square=False"
            )
        self.compose.set_random_state(seed=seed)
        tracked = get_track_meta()
        set_track_meta(False)  # metadata would make each transform several times slower
        try:
            out = self.compose(
                {"image": image, "label": label[None].float(), "valid": valid[None].float()}
            )
        finally:
            set_track_meta(tracked)
        augmented = torch.as_tensor(out["image"]).float().contiguous()
        return (
            augmented.clamp(0.0, 1.0) if self.intensity else augmented,  # noise leaves the range
            torch.as_tensor(out["label"])[0].round().to(torch.uint8),
            torch.as_tensor(out["valid"])[0].round().to(torch.uint8),
        )
