"""A case as the network sees it: its input, and on the same grid the structure and what counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from hymunet.data.image_io import Image
from hymunet.data.preprocess import Preprocess
from hymunet.evaluation.truth import Truth
from hymunet.experiments.inspect.receptive_field import ball_diameter


@dataclass(frozen=True)
class View:
    """One case on the network's own grid.

    Args:
        image: Network input (1, C, *spatial).
        inside: Where any structure is, bool (*spatial), on the CPU.
        counted: Where the picture is and counts; padding and areas that are not valid are not.
    """

    image: Tensor
    inside: Tensor
    counted: Tensor


@dataclass(frozen=True)
class Example:
    """A case for pictures.

    Args:
        case: Its id.
        truth: Image, reference (the prediction, where there is none) and valid area.
        predicted: Class indices, (*spatial) of the image.
        dice: Mean over structures; None without a reference.
        view: The same case on the network's grid.
    """

    case: str
    truth: Truth
    predicted: np.ndarray
    dice: float | None
    view: View


def view_of(
    image: Image,
    labels: np.ndarray,
    valid: np.ndarray | None,
    preprocess: Preprocess,
    num_labels: int,
    device: torch.device,
) -> View:
    """Preprocesses a case as for prediction. Of an image that is read in windows it is the window
    around the structure's middle (the image's, without one).

    Args:
        image: Decoded.
        labels: Class indices, (*spatial) of the image.
        valid: Pixels that count, bool (*spatial); None: all.
        preprocess: The model's.
        num_labels: Classes, the background included.
        device: Where the network is.
    """
    pixels = torch.from_numpy(np.require(image.pixels, requirements=("C", "W")))[None]
    seen = preprocess(pixels.to(device), image.spacing_mm)
    size = tuple(seen.shape[2:])

    def to_grid(values: np.ndarray, count: int) -> Tensor:
        whole = torch.from_numpy(np.ascontiguousarray(values.astype(np.uint8)))[None]
        resized = preprocess.resize_labels(whole, count, image.spacing_mm)[0]
        pads = [
            extent
            for to, side in zip(reversed(size), reversed(resized.shape), strict=True)
            for extent in (0, to - side)
        ]
        return torch.nn.functional.pad(resized, pads) > 0

    inside = to_grid(labels, num_labels)
    counted = to_grid(np.ones(labels.shape) if valid is None else valid, 2)
    patch = preprocess.config.patch_size
    if patch is not None:
        seen, inside, counted = _window(seen, inside & counted, counted, patch)
    return View(seen, inside & counted, counted)


def _window(
    image: Tensor, inside: Tensor, counted: Tensor, patch: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """A window of size `patch`, padded with zeros (the mean) where the image is smaller."""
    places = inside.nonzero().double()
    middle = places.mean(dim=0).tolist() if len(places) else [n / 2 for n in inside.shape]
    cut, pads = [], []
    for at, side, length in zip(middle, inside.shape, patch, strict=True):
        start = int(min(max(0, round(at - length / 2)), max(0, side - length)))
        cut.append(slice(start, start + length))
        pads.append((0, max(0, length - side)))
    flat = [extent for pair in reversed(pads) for extent in pair]
    pad = torch.nn.functional.pad
    index = tuple(cut)
    return (
        pad(image[(slice(None), slice(None), *index)], flat),
        pad(inside[index], flat),
        pad(counted[index], flat),
    )


def part_diameters(inside: Tensor) -> list[float]:
    """Diameter, in pixels of the network's grid, of the disc (ball) as large as each connected part
    of the structure; pixels that touch at a corner are connected."""
    mask = inside.numpy()
    found, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    sizes = np.bincount(found.ravel(), minlength=count + 1)[1:]
    return [ball_diameter(float(size), mask.ndim) for size in sizes]
