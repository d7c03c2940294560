"""Receptive fields: what a position can depend on, and what it does depend on.

The effective field is the gradient of one position with respect to the input, averaged over images
(Luo et al. 2016, https://arxiv.org/abs/1701.04128); much of the theoretical field hardly counts.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hymunet.network.hymunet import HyMUNet
from hymunet.network.summary import summarise

SHARES = (0.5, 0.95)  # of the energy, for which extents are given


def theoretical_fields(network: HyMUNet, image_size: tuple[int, ...]) -> list[int | None]:
    """Side in input pixels that one position can depend on, of each encoder stage and, last, of the
    logits; None: the whole image. Statistics of instance and group norms do not count as seeing.

    The logits' is the largest of any position, since which neighbours an interpolation takes
    differs from one to the next.
    """
    parts = summarise(network, image_size).parts
    fields: list[int | None] = [
        part.receptive_field for part in parts if part.name.startswith("encoder")
    ]
    if None in fields:
        return [*fields, None]
    config = network.config
    sides: list[int] = []
    count, scale = 1, config.stem_stride  # positions of a level that one pixel of the logits reads
    for level, own in enumerate(fields):
        assert own is not None
        if scale > 1:
            # n positions in a row take at most so many of a grid that is `scale` times coarser
            count = -(-(count - 1) // scale) + 2
        if level < len(fields) - 1:
            count += 2 * (1 + 2 * config.decoder_depth)  # 3x3 each: fuse, and two a block
        sides.append(own + (count - 1) * config.stem_stride * 2**level)
        scale = 2
    return [*fields, max(sides)]


class CentredMean:
    """The mean of maps that are laid over each other by their centres, each of them with sum 1.

    Maps may differ in size: what a smaller one does not cover counts as 0 there.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total: np.ndarray = np.zeros(())
        self.centre: tuple[int, ...] = ()

    def add(self, energy: np.ndarray, centre: Sequence[int]) -> None:
        """Adds one map; one without any energy is left out."""
        weight = energy.sum()
        if not (np.isfinite(weight) and weight > 0):
            return
        if self.count == 0:
            self.total, self.centre = np.zeros(energy.shape), tuple(centre)
        before = [max(0, new - old) for new, old in zip(centre, self.centre, strict=True)]
        behind = [
            max(0, (side - new) - (own - old))
            for side, new, own, old in zip(
                energy.shape, centre, self.total.shape, self.centre, strict=True
            )
        ]
        self.total = np.pad(self.total, list(zip(before, behind, strict=True)))
        self.centre = tuple(old + more for old, more in zip(self.centre, before, strict=True))
        corner = [own - new for own, new in zip(self.centre, centre, strict=True)]
        place = tuple(slice(at, at + side) for at, side in zip(corner, energy.shape, strict=True))
        self.total[place] += energy / weight
        self.count += 1

    @property
    def mean(self) -> np.ndarray:
        """(*spatial) with sum 1; all 0 before the first map."""
        return self.total / max(1, self.count)


def densest(energy: np.ndarray, share: float) -> np.ndarray:
    """The smallest set of positions that holds `share` of the energy, as a mask."""
    order = np.argsort(energy, axis=None)[::-1]
    cumulative = np.cumsum(energy.ravel()[order])
    # rounding must not ask for more than there is
    count = int(np.searchsorted(cumulative, share * cumulative[-1] * (1 - 1e-12))) + 1
    mask = np.zeros(energy.size, bool)
    mask[order[:count]] = True
    return mask.reshape(energy.shape)


def diameter(energy: np.ndarray, centre: Sequence[int], share: float) -> float:
    """Diameter, in positions, of the ball around `centre` that holds `share` of the energy: of all
    positions whose centres lie within it; 1 for the centre alone."""
    offsets = np.ogrid[
        tuple(slice(-at, n - at) for at, n in zip(centre, energy.shape, strict=True))
    ]
    squared = np.zeros(energy.shape)
    for offset in offsets:
        squared = squared + np.square(offset, dtype=np.float64)
    order = np.argsort(squared, axis=None)
    cumulative = np.cumsum(energy.ravel()[order])
    place = int(np.searchsorted(cumulative, share * cumulative[-1] * (1 - 1e-12)))
    return 1 + 2 * math.sqrt(squared.ravel()[order[place]])


def extents(field: CentredMean, unit: float = 1.0) -> dict[str, Any] | None:
    """Numbers of a mean map: `d50` and `d95`, the diameters of the balls that hold 50 and 95 % of
    the energy, and `same50` and `same95`, the diameters of balls as large as the smallest sets that
    do, whatever their shape. None without any map.

    Args:
        field: The mean.
        unit: Pixels of the input a position stands for.
    """
    if field.count == 0:
        return None
    numbers: dict[str, Any] = {"n": field.count}
    for share in SHARES:
        name = f"{share * 100:.0f}"
        numbers[f"d{name}"] = unit * diameter(field.mean, field.centre, share)
        area = int(densest(field.mean, share).sum())
        numbers[f"same{name}"] = unit * ball_diameter(area, field.mean.ndim)
    return numbers


def ball_diameter(size: float, dimensions: int) -> float:
    """Diameter of the circle of area `size`, or of the ball of volume `size`."""
    if dimensions == 2:
        return 2 * math.sqrt(size / math.pi)
    return 2 * (3 * size / (4 * math.pi)) ** (1 / 3)
