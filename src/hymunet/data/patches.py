"""Pieces of a case too large to be trained on whole: where they are cut, and how they are read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from hymunet.errors import HyMUNetError


def places_of_classes(label: Tensor, valid: Tensor | None, most: int = 1000) -> Tensor:
    """Pixels to centre patches on: (n, 1 + dims) int16, class index and position, at most `most` a
    class of those that count, evenly spaced in raster order; the background is left out.

    Raises:
        HyMUNetError: If a side is above 32 767.
    """
    if max(label.shape) > torch.iinfo(torch.int16).max:
        raise HyMUNetError(f"an image of size {tuple(label.shape)} is too large to be trained on")
    counted = label if valid is None else label * (valid > 0)
    found = counted.nonzero()
    classes = counted[tuple(found.T)]
    rows = [torch.zeros((0, 1 + label.ndim), dtype=torch.int16)]
    for index in classes.unique():
        of_class = found[classes == index]
        chosen = of_class[torch.linspace(0, len(of_class) - 1, min(most, len(of_class))).long()]
        rows.append(torch.cat([index.expand(len(chosen), 1), chosen], dim=1).to(torch.int16))
    return torch.cat(rows)


def choose_corner(
    size: Sequence[int],
    patch_size: Sequence[int],
    places: np.ndarray,
    foreground: float,
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """The first corner of a patch inside an image; 0 along an axis that is shorter than the patch.

    With probability `foreground` the patch holds a pixel of a class drawn evenly from those that
    the image shows, so that a rare one is met as often as a common one; that pixel lies in the
    patch's middle half where the border allows it. Otherwise each position is as likely.

    Args:
        size: Of the image.
        patch_size: Of the patch.
        places: (n, 1 + dims), see `places_of_classes`; none: every position is as likely.
        foreground: Probability.
        rng: What is drawn from; the same draws are made in each case.
    """
    room = [max(0, side - patch) for side, patch in zip(size, patch_size, strict=True)]
    anywhere = [int(rng.integers(most + 1)) for most in room]
    wanted, which_class, which_place = rng.uniform(size=3)
    depth_in_patch = rng.uniform(0.25, 0.75, size=len(room))
    if wanted >= foreground or len(places) == 0:
        return tuple(anywhere)
    classes = np.unique(places[:, 0])
    of_class = places[places[:, 0] == classes[int(which_class * len(classes))]]
    place = of_class[int(which_place * len(of_class)), 1:]
    return tuple(
        int(np.clip(int(at) - int(share * patch), 0, most))
        for at, share, patch, most in zip(place, depth_in_patch, patch_size, room, strict=True)
    )


def read_patch(
    entry: Path, patch_size: Sequence[int], foreground: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One patch of a cache entry; only its part of the file is read.

    Args:
        entry: A file of `CaseCache` under `window`.
        patch_size: Of the patch; what lies beyond the image is 0 and not valid.
        foreground: See `choose_corner`.
        rng: Likewise.

    Returns:
        image (channels, *patch_size) float32, label and valid (*patch_size) uint8.
    """
    with safe_open(entry, framework="pt") as file:
        image, label = file.get_slice("image"), file.get_slice("label")
        size = label.get_shape()
        places = file.get_tensor("places").numpy()
        corner = choose_corner(size, patch_size, places, foreground, rng)
        inside = tuple(slice(at, at + side) for at, side in zip(corner, patch_size, strict=True))
        pixels, classes = image[(slice(None), *inside)].float(), label[inside]
        has_valid = "valid" in file.keys()  # noqa: SIM118 - safe_open is no mapping
        valid = file.get_slice("valid")[inside] if has_valid else torch.ones_like(classes)
    pads: list[int] = []
    for side, there in zip(reversed(patch_size), reversed(classes.shape), strict=True):
        pads += [0, side - there]
    if not any(pads):
        return pixels, classes, valid
    return F.pad(pixels, pads), F.pad(classes, pads), F.pad(valid, pads)
