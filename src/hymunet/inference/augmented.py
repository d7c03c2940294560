"""Test-time augmentation: the mean prediction over the mirrorings and quarter turns of an image.

A network trained with flips and turns is only nearly indifferent to them; its mean over all of them
is exactly so, and a little better, at a multiple of the time.
"""

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import product

import torch
from torch import Tensor


def symmetries(spatial_dims: int) -> Iterator[tuple[tuple[int, ...], bool]]:
    """What maps a grid onto a grid: the axes to mirror, and whether height and width change places
    afterwards. Eight in 2-D (with the turns by quarters that follow from both) and in 3-D (where
    axes are not exchanged: slices are often thicker than pixels)."""
    axes = range(2, 2 + spatial_dims)
    for chosen in product((False, True), repeat=spatial_dims):
        mirrored = tuple(
            axis for axis, is_mirrored in zip(axes, chosen, strict=True) if is_mirrored
        )
        for exchanged in (False, True) if spatial_dims == 2 else (False,):
            yield mirrored, exchanged


def mean_over_symmetries(predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean over all symmetries S of S^-1(predict(S(images))).

    Args:
        predict: (B, channels, *spatial) -> (B, num_classes, *spatial), for the grid as it is and,
            in 2-D, with height and width exchanged.
        images: (B, channels, *spatial).

    Returns:
        (B, num_classes, *spatial).
    """

    def seen(mirrored: tuple[int, ...], exchanged: bool) -> Tensor:
        moved = images.flip(mirrored)
        predicted = predict(moved.transpose(2, 3).contiguous() if exchanged else moved)
        return (predicted.transpose(2, 3) if exchanged else predicted).flip(mirrored)

    views = list(symmetries(images.ndim - 2))
    # a running sum: a volume's eight predictions at once may not fit into memory
    return reduce(torch.add, (seen(*view) for view in views)) / len(views)
