"""Scan orders: in which sequence each direction visits the tokens of a 2-D or 3-D grid.

A direction is a permutation of the raster index, nothing more: the scan reads `order[k, t]` instead
of a permuted copy of its input, so a new path (Hilbert, dilated) is a new table and no new kernel.
"""

from functools import lru_cache

import torch
from torch import Tensor


def scan_orders(shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """The cross-scan of a grid: each axis as the fastest one, forwards and backwards.

    In 2-D these are the four directions of VMamba (rows, rows reversed, columns, columns reversed;
    Liu et al. 2024, https://arxiv.org/abs/2401.10166); in 3-D there are six.

    Args:
        shape: Grid size, (height, width) or (depth, height, width), each at least 1.
        device: Where the table shall live; tables are kept and returned again for equal arguments,
            so treat them as constants.

    Returns:
        (2 * len(shape), number of tokens) int64; `order[k, t]` is the raster index of the token
        that direction k visits at step t.

    Raises:
        ValueError: If `shape` is empty or an axis is shorter than 1.
    """
    shape = tuple(int(side) for side in shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"a grid needs axes of length 1 or more, but its shape is {shape}")
    return _scan_orders(shape, torch.device(device))


# four directions of a 256x256 grid are 2 MiB; sizes that alternate more than this are rebuilt
@lru_cache(maxsize=64)
def _scan_orders(shape: tuple[int, ...], device: torch.device) -> Tensor:
    # a table made during inference serves a later training, whose backward needs a normal tensor
    with torch.inference_mode(False):
        tokens = torch.arange(torch.Size(shape).numel()).view(shape)
        paths = []
        for axis in reversed(range(len(shape))):  # the last axis first: direction 0 is the raster
            path = tokens.movedim(axis, -1).flatten()
            paths += [path, path.flip(0)]
        order = torch.stack(paths).to(device)
    order.is_permutation = True  # type: ignore[attr-defined]  # saves selective_scan the check
    return order
