"""Training pictures through a worse camera and past hair: the corruptions as random transforms.

`hymunet robustness` draws by the same code: its rows for hairs and JPEG then show how far training
on them goes, not how the network would do on marks that it never met.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from hymunet.data import corruption_camera, corruption_marks
from hymunet.data.corruption_geometry import Sample


class _OfPixels(Randomizable, MapTransform):
    """With probability `prob`, a change of an image in [0, 1] of 1 or 3 channels, as 8-bit pixels;
    volumes and pictures of other channels stay as they are."""

    def __init__(self, prob: float) -> None:
        super().__init__(keys=("image",))
        self.prob = prob

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        image: Tensor = data["image"]
        chance, seed = self.R.uniform(), int(self.R.randint(2**31))
        if chance >= self.prob or image.ndim != 3 or image.shape[0] not in (1, 3):
            return data
        pixels = (image.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()
        changed = self.change(pixels, np.random.default_rng(seed))
        return {**data, "image": torch.from_numpy(changed).to(image.dtype) / 255.0}

    @abstractmethod
    def change(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...


class RandJpeg(_OfPixels):
    """Saved as JPEG of a quality between 15 and 60."""

    def change(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return corruption_camera.jpeg(pixels, int(rng.integers(15, 60)))


class RandHairs(_OfPixels):
    """3 to 39 hairs across the frame, from black over brown and red to white."""

    def change(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        red, *rest = rng.uniform(20, 230) * np.array(
            [1.0, rng.uniform(0.7, 1), rng.uniform(0.5, 1)]
        )
        sample = Sample(pixels, np.zeros(pixels.shape[1:], np.uint8))
        count = int(rng.integers(3, 40))
        return corruption_marks.hairs(sample, count, (red, rest[0], rest[1]), rng).pixels
