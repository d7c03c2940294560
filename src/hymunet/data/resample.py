"""Images and volumes onto another grid of the same extent."""

import torch
from torch import Tensor
from torch.nn import functional as F


def same_size(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes are equal; while a graph is traced, whether they are so for any image: a
    comparison of the example's size would make it the only one that the graph takes."""
    if not torch.compiler.is_compiling():
        return tuple(one) == tuple(other)
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return all(statically_known_true(a == b) for a, b in zip(one, other, strict=True))


def interpolate(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, C, *spatial) -> (B, C, *size), linear along each axis and antialiased where it shrinks.

    torch antialiases in two dimensions only; since the filter is separable, a volume takes two
    passes: rows and columns of each slice, then slices with rows left alone.
    """
    if same_size(tuple(image.shape[2:]), size):
        return image
    if len(size) == 2:
        return F.interpolate(image, size=size, mode="bilinear", antialias=True)
    batch, channels, depth, height, width = image.shape
    if (height, width) != tuple(size[1:]):
        slices = image.reshape(batch * channels, depth, height, width)
        image = interpolate(slices, tuple(size[1:])).reshape(batch, channels, depth, *size[1:])
    if depth != size[0]:
        flat = image.reshape(batch, channels, depth, size[1] * size[2])
        image = interpolate(flat, (size[0], size[1] * size[2])).reshape(batch, channels, *size)
    return image
