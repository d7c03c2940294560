"""Another view of the same thing: turned or scaled, the truth and the valid area with it.

The frame keeps its size (a quarter turn exchanges its sides). What comes into view from outside is
the picture reflected at its border, as a network's training saw it; there is no truth about it, so
it does not count: copies of the structure, cut by the frame, are no part of the question.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Sample:
    """A picture with its truth, on one grid.

    Args:
        pixels: (channels, height, width) uint8, 1 channel (grey) or 3 (red, green, blue).
        labels: Class indices, (height, width) integers.
        valid: Pixels that count, bool, (height, width); None: all.
    """

    pixels: np.ndarray
    labels: np.ndarray
    valid: np.ndarray | None = None


def rotated(sample: Sample, degrees: float) -> Sample:
    """Turned about the centre, anticlockwise as one looks at it; corners are filled by reflection
    and do not count. Values between pixels are interpolated linearly."""
    from scipy.ndimage import affine_transform

    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = (np.array(sample.labels.shape) - 1) / 2
    start = middle - turn @ middle

    def warp(plane: np.ndarray, reflected: bool) -> np.ndarray:
        mode = "reflect" if reflected else "grid-constant"
        warped: np.ndarray = affine_transform(plane, turn, start, order=1, mode=mode)
        return warped

    return _warped(sample, warp)


def quarter_turned(sample: Sample, turns: int = 1) -> Sample:
    """Turned anticlockwise by quarters: pixels change places, and nothing is interpolated."""
    valid = sample.valid
    return Sample(
        np.ascontiguousarray(np.rot90(sample.pixels, turns, axes=(1, 2))),
        np.ascontiguousarray(np.rot90(sample.labels, turns)),
        None if valid is None else np.ascontiguousarray(np.rot90(valid, turns)),
    )


def zoomed(sample: Sample, factor: float) -> Sample:
    """Seen from nearer (factor above 1: the middle fills the frame) or from farther (below 1: the
    surroundings are the picture's reflection and do not count), with antialiasing."""
    height, width = sample.labels.shape
    pads = [max(0, int(np.ceil((1 / factor - 1) / 2 * side))) for side in (height, width)]
    box = tuple(
        pad + side / 2 + end * side / (2 * factor)
        for end in (-1, 1)
        for pad, side in ((pads[1], width), (pads[0], height))
    )  # left, upper, right, lower

    def warp(plane: np.ndarray, reflected: bool) -> np.ndarray:
        widths = [(pad, pad) for pad in pads]
        padded = np.pad(plane, widths, mode="symmetric" if reflected else "constant")
        picture = Image.fromarray(padded)  # mode F: not rounded on the way
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box))

    return _warped(sample, warp)


def _warped(sample: Sample, warp: Callable[[np.ndarray, bool], np.ndarray]) -> Sample:
    """The sample under a linear map of planes (height, width) float32 -> the same, which takes what
    lies outside as reflected (True) or as 0 (False).

    A pixel gets the class that covers most of it, a tie going to the higher one, as when training
    resizes masks.
    """
    planes = [warp(plane, True) for plane in sample.pixels.astype(np.float32)]
    pixels = np.clip(np.rint(np.stack(planes)), 0, 255).astype(np.uint8)
    labels = np.zeros_like(sample.labels)
    most = np.zeros(labels.shape, np.float32)
    for label in np.unique(sample.labels):
        share = warp((sample.labels == label).astype(np.float32), True)
        wins = share > most - 1e-5
        labels[wins] = label
        most = np.maximum(most, share)
    counted = np.ones(labels.shape, bool) if sample.valid is None else sample.valid
    valid = warp(counted.astype(np.float32), False) > 0.5 - 1e-5
    return Sample(pixels, labels, None if valid.all() else valid)
