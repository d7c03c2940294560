"""Scan orders: in which sequence each direction visits the tokens of a 2-D or 3-D grid.

A direction is a permutation of the raster index, nothing more: the scan reads `order[k, t]` instead
of a permuted copy of its input, so a new path (Hilbert, dilated) is a new table and no new kernel.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


def scan_orders(
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
    directions: int | None = None,
) -> Tensor:
    """The cross-scan of a grid: each axis as the fastest one, forwards and backwards.

    In 2-D these are the four directions of VMamba (rows, rows reversed, columns, columns reversed;
    Liu et al. 2024, https://arxiv.org/abs/2401.10166); in 3-D there are six.

    Args:
        shape: Grid size, (height, width) or (depth, height, width), each at least 1. Under
            `torch.export` and `torch.compile` the sizes may be symbolic: the table is then computed
            in the graph, for whatever size comes.
        device: Where the table shall live; tables are kept and returned again for equal arguments,
            so treat them as constants.
        directions: Only the first so many; None: all.

    Returns:
        (directions, number of tokens) int64, directions 2 * len(shape) where none are given;
        `order[k, t]` is the raster index of the token that direction k visits at step t.

    Raises:
        ValueError: If `shape` is empty, an axis is shorter than 1, or there are not so many
            directions.
    """
    if not isinstance(shape, (tuple, list)) or not shape or any(side < 1 for side in shape):
        raise ValueError(
            f"a grid needs axes of length 1 or more, but its shape is {shape!r}; "
            "pass (height, width) or (depth, height, width)"
        )
    most = 2 * len(shape)
    if directions is not None and not 1 <= directions <= most:
        raise ValueError(
            f"a grid of {len(shape)} axes is scanned in 1 to {most} directions, not {directions}"
        )
    count = directions or most
    # tensors are stand-ins while a graph is traced, and under FakeTensorMode: one of those in the
    # cache would be handed to real computations later
    if torch.compiler.is_compiling() or _tensors_are_stand_ins():
        return _make_orders(shape, device, count)
    key = (tuple(int(side) for side in shape), torch.device(device), count)
    order = _cached_orders(*key)
    if not is_scan_order(order):  # somebody has written into it: it is theirs now
        _cached_orders.cache_clear()
        order = _cached_orders(*key)
    return order


def _tensors_are_stand_ins() -> bool:
    made = torch.empty(0)
    return type(made) is not Tensor or torch._is_functional_tensor(made)


def is_scan_order(order: Tensor) -> bool:
    """Whether this very tensor came from `scan_orders` and nobody has written into it since."""
    # by torch's count of in-place changes, which tensors made in inference mode do not have
    made_at = getattr(order, "scan_order_version", None)
    return made_at is not None and order._version == made_at


# four directions of a 256x256 grid are 2 MiB; sizes that alternate more than this are rebuilt
@lru_cache(maxsize=64)
def _cached_orders(shape: tuple[int, ...], device: torch.device, count: int) -> Tensor:
    # a table made during inference serves a later training, whose backward needs a normal tensor
    with torch.inference_mode(False):
        order = _make_orders(shape, "cpu", count).to(device)
    order.scan_order_version = order._version  # type: ignore[attr-defined]
    return order


def _make_orders(shape: tuple[int, ...], device: torch.device | str, count: int) -> Tensor:
    tokens = torch.arange(math.prod(shape), device=device).view(shape)
    paths = []
    for axis in reversed(range(len(shape))):  # the last axis first: direction 0 is the raster
        path = tokens.movedim(axis, -1).flatten()
        paths += [path, path.flip(0)]
    return torch.stack(paths[:count])
